"""Qdrant, the vector store: its URLs, its clients, and its errors as ours. What needs it says `[qdrant]`."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from producer.errors import ConfigurationError, StoreUnavailable

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient, QdrantClient

LOCAL = "qdrant+local:"
SCHEMES = ("qdrant", "qdrant+https", "qdrant+local")

_PORT = 6333
_TIMEOUT_S = 30
_FORMS = "qdrant://host:6333/collection, qdrant+https://host/collection or qdrant+local:FOLDER#collection"
_EXPECTED_WARNINGS = "Local mode is not recommended|Payload indexes have no effect|Api key is used with an insecure"


@dataclass(frozen=True, kw_only=True)
class QdrantAddress:
    """A collection or an alias of a store: of a server by `url`, or of an embedded one in the folder `path`."""

    collection: str
    url: str = ""
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> "QdrantAddress":
        """Read a URL.

        Raises:
            ConfigurationError: it is none of the three forms, or holds a password (the API key has a setting).
        """
        if text.startswith(LOCAL):
            folder, _, collection = text.removeprefix(LOCAL).partition("#")
            if not (folder and collection):
                raise ConfigurationError(f"{text!r} must name a folder and a collection: {LOCAL}FOLDER#collection")
            return cls(collection=collection, path=str(Path(folder).expanduser().absolute()))
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ConfigurationError(f"this is no URL of Qdrant's: write {_FORMS}") from None
        if parts.username or parts.password or parts.query:
            raise ConfigurationError(
                "the URL of Qdrant holds more than a place: the API key is HEADRACE_QDRANT_API_KEY"
            )
        collection = unquote(parts.path.strip("/"))
        if parts.scheme not in SCHEMES or not host or not collection or "/" in collection or parts.fragment:
            raise ConfigurationError(f"{text!r} is no collection of Qdrant's: write {_FORMS}")
        shown = f"[{host}]" if ":" in host else host
        secure = parts.scheme.endswith("https")
        return cls(collection=collection, url=f"http{'s' * secure}://{shown}:{port or (443 if secure else _PORT)}")

    @property
    def place(self) -> str:
        """The store without the collection, for messages and comparisons."""
        return self.url or self.path

    @property
    def name(self) -> str:
        """The address in one form, whatever form it came in; without secrets."""
        if self.path:
            return f"{LOCAL}{self.path}#{self.collection}"
        scheme, _, rest = self.url.partition("://")
        return f"qdrant{'+https' if scheme == 'https' else ''}://{rest}/{self.collection}"


def connect(address: QdrantAddress, api_key: str = "", *, create: bool = False) -> "QdrantClient":
    """Open a client; a server is first asked at the first call. With `create` an embedded store may be made anew.

    Raises:
        ConfigurationError: qdrant-client is not installed, or the folder holds no store.
        StoreUnavailable: another process has the folder open.
    """
    with store_errors(address.place), _quiet():
        library = _library()
        return library.QdrantClient(**_arguments(address, api_key, create=create))  # type: ignore[no-any-return]


def connect_async(address: QdrantAddress, api_key: str = "") -> "AsyncQdrantClient":
    """The same for asyncio; an embedded store is opened at once."""
    with store_errors(address.place), _quiet():
        library = _library()
        return library.AsyncQdrantClient(**_arguments(address, api_key, create=False))  # type: ignore[no-any-return]


@contextmanager
def store_errors(place: str) -> Iterator[None]:
    """Map what the client raises, once, here; `place` is the store for the message."""
    try:
        with _quiet():
            yield
    except ImportError:
        raise
    except Exception as error:
        mapped = _mapped(error, place)
        if mapped is None:
            raise
        raise mapped from error


def _mapped(error: Exception, place: str) -> StoreUnavailable | None:
    """Our error for one of the client's; None for whatever is not the store's doing."""
    from qdrant_client.http.exceptions import (  # noqa: PLC0415 - only who uses the store loads its client
        ApiException,
        ResponseHandlingException,
        UnexpectedResponse,
    )

    if isinstance(error, ResponseHandlingException):
        return StoreUnavailable(f"Qdrant at {place} cannot be reached: {error.source}")
    if isinstance(error, UnexpectedResponse):
        if error.status_code is not None and error.status_code >= 500:
            return StoreUnavailable(f"Qdrant at {place} fails with {error.status_code}: {_told(error)}")
        return StoreUnavailable(
            f"Qdrant at {place} refuses with {error.status_code}: {_told(error)}", code="store_refused"
        )
    if isinstance(error, ApiException):
        return StoreUnavailable(f"Qdrant at {place} cannot be used: {error}")
    if isinstance(error, RuntimeError) and "already accessed" in str(error):
        return StoreUnavailable(
            f"the store in {place} is open in another process: an embedded store serves one at a time, a server many",
            code="store_refused",
        )
    return None


def _told(error: Any) -> str:
    """What the server says in its answer's `status.error`, or the answer's beginning."""
    try:
        return str(error.structured()["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return str(error.content[:200].decode(errors="replace") or error.reason_phrase)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the client's warnings that an embedded store is a small one, which the README says."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_EXPECTED_WARNINGS)
        yield


def _library() -> Any:
    try:
        import qdrant_client  # noqa: PLC0415 - only who uses the store installs and loads it
    except ImportError as error:
        raise ConfigurationError("qdrant-client is not installed: pip install 'headrace[qdrant]'") from error
    return qdrant_client


def _arguments(address: QdrantAddress, api_key: str, *, create: bool) -> dict[str, Any]:
    if not address.path:
        return {"url": address.url, "api_key": api_key or None, "timeout": _TIMEOUT_S, "check_compatibility": False}
    if not create and not (Path(address.path) / "meta.json").is_file():
        raise ConfigurationError(f"there is no Qdrant store in {address.path}")
    return {"path": address.path, "force_disable_check_same_thread": True}
