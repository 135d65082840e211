"""A store as far as moving aliases needs it: a server by plain REST, since qdrant-client takes a second to load."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from producer.bulk.aliases import AliasStore
from producer.bulk.collections import open_collections
from producer.errors import ConfigurationError, StoreUnavailable
from producer.provenance import Provenance
from producer.qdrant import NOT_INSTALLED, TIMEOUT_S, QdrantAddress, key_headers, refusal, told

if TYPE_CHECKING:
    import httpx


class RestAliasStore:
    """The collections and aliases of a server; its errors are ours, and worded like those of `Collections`."""

    def __init__(self, client: "httpx.Client", place: str) -> None:
        self._client = client
        self._place = place

    def aliases(self) -> dict[str, str]:
        """All aliases and the collections they point at."""
        return {each["alias_name"]: each["collection_name"] for each in self._ask("GET", "/aliases")["aliases"]}

    def names(self) -> list[str]:
        """All collections, sorted."""
        return sorted(each["name"] for each in self._ask("GET", "/collections")["collections"])

    def exists(self, name: str) -> bool:
        """Whether it is a collection; an alias is not."""
        return name in self.names()

    def provenance(self, name: str) -> Provenance | None:
        """What a collection that exists says of its vectors."""
        return Provenance.read(self._ask("GET", _path(name))["config"].get("metadata"))

    def count(self, name: str) -> int:
        """How many points there are, exactly."""
        return int(self._ask("POST", f"{_path(name)}/points/count", {"exact": True})["count"])

    def describe(self, name: str, provenance: Provenance) -> None:
        """Write what a collection says of its vectors; whatever else its metadata holds stays."""
        self._ask("PATCH", _path(name), {"metadata": provenance.as_metadata()})

    def point(self, alias: str, target: str, *, current: str) -> None:
        """Let an alias point at a collection, in one operation; `current` is where it points, "" for a new one."""
        removal = [{"delete_alias": {"alias_name": alias}}] if current else []
        creation = {"create_alias": {"collection_name": target, "alias_name": alias}}
        self._ask("POST", "/collections/aliases", {"actions": [*removal, creation]})

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """The result that a server's answer holds."""
        import httpx  # noqa: PLC0415 - qdrant-client's own need

        try:
            answer = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise StoreUnavailable(f"Qdrant at {self._place} cannot be reached: {error}") from error
        if answer.is_success:
            try:
                return answer.json()["result"]
            except (ValueError, KeyError, TypeError):
                pass
        raise refusal(answer.status_code, told(answer.content, answer.reason_phrase), self._place)


@contextmanager
def open_alias_store(address: QdrantAddress, api_key: str) -> Iterator[AliasStore]:
    """Open the store of an address for a while; an embedded one only by qdrant-client.

    Raises:
        ConfigurationError: qdrant-client is not installed, or there is no embedded store.
    """
    if address.path:
        with open_collections(address, api_key) as collections:
            yield collections
        return
    try:
        import httpx  # noqa: PLC0415 - qdrant-client's own need
    except ImportError as error:
        raise ConfigurationError(NOT_INSTALLED) from error
    with httpx.Client(base_url=address.url, headers=key_headers(api_key), timeout=TIMEOUT_S) as client:
        yield RestAliasStore(client, address.place)


def _path(collection: str) -> str:
    return f"/collections/{quote(collection, safe='')}"
