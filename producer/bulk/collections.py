"""The collections of a Qdrant store: what a name stands for, what one is made of and says of itself, its points."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from producer.errors import ConfigurationError
from producer.provenance import Provenance
from producer.qdrant import QdrantAddress, connect, store_errors

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from qdrant_client.http import models

_MOST_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a collection is made of: `dimension` and `distance` are None if its vectors are named, sparse or several.

    `indexes` are its payload indexes: what the client takes to make them, by field.
    """

    dimension: int | None
    distance: str | None
    indexes: Mapping[str, Any]
    provenance: Provenance | None


class Collections:
    """A store's collections, by an open client; errors of the store are ours."""

    def __init__(self, client: "QdrantClient", place: str) -> None:
        self.client = client
        self.place = place

    def aliases(self) -> dict[str, str]:
        """All aliases and the collections they point at."""
        with store_errors(self.place):
            return {alias.alias_name: alias.collection_name for alias in self.client.get_aliases().aliases}

    def names(self) -> list[str]:
        """All collections, sorted."""
        with store_errors(self.place):
            return sorted(collection.name for collection in self.client.get_collections().collections)

    def exists(self, name: str) -> bool:
        """Whether it is a collection; an alias is not."""
        return name in self.names()

    def resolve(self, name: str) -> tuple[str, str]:
        """The collection that a name stands for, and the name if it is an alias, else "".

        Raises:
            ConfigurationError: it is neither.
        """
        aliases = self.aliases()
        if name in aliases:
            return aliases[name], name
        names = self.names()
        if name in names:
            return name, ""
        raise ConfigurationError(
            f"there is no collection or alias {name!r} in {self.place}: it has {named([*aliases, *names])}"
        )

    def layout(self, name: str) -> Layout:
        """What a collection that exists is made of."""
        with store_errors(self.place):
            info = self.client.get_collection(name)
        vectors = info.config.params.vectors
        single = vectors if vectors is not None and not isinstance(vectors, dict) else None
        plain = single is not None and single.multivector_config is None and not info.config.params.sparse_vectors
        return Layout(
            dimension=single.size if single and plain else None,
            distance=single.distance.value if single and plain else None,
            indexes={field: index.params or index.data_type for field, index in info.payload_schema.items()},
            provenance=Provenance.read(info.config.metadata),
        )

    def provenance(self, name: str) -> Provenance | None:
        """What a collection that exists says of its vectors."""
        return self.layout(name).provenance

    def count(self, name: str, where: Any = None) -> int:
        """How many points there are, exactly."""
        with store_errors(self.place):
            return self.client.count(name, count_filter=where, exact=True).count

    def points(self, name: str, ids: Sequence[str | int]) -> list[Any]:
        """Those of these points that are there, with payloads and vectors."""
        with store_errors(self.place):
            return self.client.retrieve(name, list(ids), with_payload=True, with_vectors=True)

    def upsert(self, name: str, points: "list[models.PointStruct]") -> None:
        """Write points; when it returns they are kept."""
        with store_errors(self.place):
            self.client.upsert(name, points, wait=True)

    def create(self, name: str, *, dimension: int, distance: str, provenance: Provenance) -> None:
        """Make a collection of single, unnamed vectors, which says from its first moment what it is."""
        from qdrant_client.http import models  # noqa: PLC0415 - only who uses the store loads its client

        vectors = models.VectorParams(size=dimension, distance=models.Distance(distance))
        with store_errors(self.place):
            self.client.create_collection(name, vectors_config=vectors, metadata=provenance.as_metadata())

    def add_indexes(self, name: str, indexes: Mapping[str, Any]) -> None:
        """Make payload indexes, and wait for them."""
        with store_errors(self.place):
            for field, schema in indexes.items():
                self.client.create_payload_index(name, field, schema, wait=True)

    def delete(self, name: str) -> None:
        """Delete a collection that no alias points at."""
        with store_errors(self.place):
            self.client.delete_collection(name)

    def describe(self, name: str, provenance: Provenance) -> None:
        """Write what a collection says of its vectors; whatever else its metadata holds stays."""
        with store_errors(self.place):
            self.client.update_collection(name, metadata=provenance.as_metadata())

    def point(self, alias: str, target: str, *, current: str) -> None:
        """Let an alias point at a collection, in one operation; `current` is where it points, "" for a new one."""
        from qdrant_client.http import models  # noqa: PLC0415 - only who uses the store loads its client

        made = models.CreateAlias(collection_name=target, alias_name=alias)
        operations: list[models.AliasOperations] = [models.CreateAliasOperation(create_alias=made)]
        if current:
            removed = models.DeleteAlias(alias_name=alias)
            operations.insert(0, models.DeleteAliasOperation(delete_alias=removed))
        with store_errors(self.place):
            self.client.update_collection_aliases(change_aliases_operations=operations)


@contextmanager
def open_collections(address: QdrantAddress, api_key: str, *, create: bool = False) -> Iterator[Collections]:
    """Open the store of an address for a while."""
    client = connect(address, api_key, create=create)
    try:
        yield Collections(client, address.place)
    finally:
        client.close()


def named(names: Collection[str]) -> str:
    """Names for a message, a few of them; "none" if there are none."""
    shown = ", ".join(list(names)[:_MOST_NAMED])
    return f"{shown} and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else shown or "none"
