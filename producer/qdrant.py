"""Qdrant, the vector store: its URLs, its clients, and its errors as ours. What needs it says `[qdrant]`."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

from producer.errors import ConfigurationError, HeadraceError, StoreUnavailable
from producer.qdrant_embedded import AsyncSharedStore, SharedStore

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient, QdrantClient

LOCAL = "qdrant+local:"
TIMEOUT_S = 30
"""For one answer. Writes wait for the server's disk."""

SCHEMES = ("qdrant", "qdrant+https", "qdrant+local")

_PORT = 6333
NOT_INSTALLED = "qdrant-client is not installed: pip install 'headrace[qdrant]'"
_FORMS = "qdrant://host:6333/collection, qdrant+https://host/collection or qdrant+local:FOLDER#collection"
_TOO_MANY_REQUESTS = 429
_SHOWN_BYTES = 200


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
            try:
                return cls(collection=collection, path=str(Path(folder).expanduser().absolute()))
            except RuntimeError:
                raise ConfigurationError(f"{text!r} names the home folder of nobody") from None
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
            (host or "").encode("idna")  # as sockets do, whose errors nobody maps
        except ValueError:
            raise ConfigurationError(f"this is no URL of Qdrant's: write {_FORMS}") from None
        if parts.username or parts.password or parts.query:
            raise ConfigurationError(
                "the URL of Qdrant holds more than a place: the API key is HEADRACE_QDRANT_API_KEY"
            )
        collection = unquote(parts.path.strip("/"))
        if host and (" " in host or not host.isprintable()):
            host = None
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


def connect(
    address: QdrantAddress, api_key: str = "", *, create: bool = False, timeout_s: int = TIMEOUT_S
) -> "QdrantClient":
    """Open a client; a server is first asked at the first call. With `create` an embedded store may be made anew.

    An embedded store is opened once per process: clients of one folder share it, and the last `close` closes it.

    Raises:
        ConfigurationError: qdrant-client is not installed, or the folder holds no store.
        StoreUnavailable: another process has the folder open, or it cannot be read.
    """
    with store_errors(address.place):
        library = _library()
        if address.path:
            _check_folder(address.path, create=create)
            return cast("QdrantClient", SharedStore(address.path, lambda: _embedded(library, address.path)))
        return library.QdrantClient(**_server(address, api_key, timeout_s))  # type: ignore[no-any-return]


def connect_async(address: QdrantAddress, api_key: str = "", *, timeout_s: int = TIMEOUT_S) -> "AsyncQdrantClient":
    """The same for asyncio; an embedded store is opened at once."""
    with store_errors(address.place):
        library = _library()
        if address.path:
            _check_folder(address.path, create=False)
            return cast("AsyncQdrantClient", AsyncSharedStore(address.path, lambda: _embedded(library, address.path)))
        return library.AsyncQdrantClient(**_server(address, api_key, timeout_s))  # type: ignore[no-any-return]


@contextmanager
def store_errors(place: str) -> Iterator[None]:
    """Map what the client raises, once, here; `place` is the store for the message."""
    try:
        yield
    except (ImportError, HeadraceError):
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
        return refusal(error.status_code, told(error.content, error.reason_phrase), place)
    if isinstance(error, ApiException):
        return StoreUnavailable(f"Qdrant at {place} cannot be used: {error}")
    return _mapped_embedded(error, place)


def refusal(status_code: int | None, told: str, place: str) -> StoreUnavailable:
    """Our error for an answer of a server that is none."""
    if status_code is not None and (status_code >= 500 or status_code == _TOO_MANY_REQUESTS):
        return StoreUnavailable(f"Qdrant at {place} fails with {status_code}: {told}")
    return StoreUnavailable(f"Qdrant at {place} refuses with {status_code}: {told}", code="store_refused")


def _mapped_embedded(error: Exception, place: str) -> StoreUnavailable | None:
    """Our error for one of the embedded engine's."""
    if isinstance(error, RuntimeError) and "already accessed" in str(error):
        return _taken(place)
    if type(error) is ValueError:  # what a server answers 400 and 404 to; pydantic's, a subclass, would show texts
        reason = f"refuses: {error}"
    elif isinstance(error, OSError | sqlite3.Error):
        reason = f"fails: {getattr(error, 'strerror', None) or error}"
    else:
        return None
    return StoreUnavailable(f"the store in {place} {reason}", code="store_refused")


def told(content: bytes, reason_phrase: str) -> str:
    """What a server says in its answer's `status.error`, or the answer's beginning."""
    try:
        return str(json.loads(content)["status"]["error"])
    except (ValueError, KeyError, TypeError):
        return content[:_SHOWN_BYTES].decode(errors="replace") or reason_phrase


def _library() -> Any:
    try:
        import qdrant_client  # noqa: PLC0415 - only who uses the store installs and loads it
    except ImportError as error:
        raise ConfigurationError(NOT_INSTALLED) from error
    return qdrant_client


def _server(address: QdrantAddress, api_key: str, timeout_s: int) -> dict[str, Any]:
    """The client's arguments. The key goes as a header: given as a key, the client would warn of a URL without TLS."""
    headers = key_headers(api_key) or None
    return {"url": address.url, "headers": headers, "timeout": timeout_s, "check_compatibility": False}


def key_headers(api_key: str) -> dict[str, str]:
    """The headers that show a server who asks.

    Raises:
        ConfigurationError: no header can hold that key.
    """
    if not (api_key.isascii() and api_key.isprintable()):  # the HTTP library would repeat it in its error
        raise ConfigurationError("HEADRACE_QDRANT_API_KEY holds characters that no API key can have")
    return {"api-key": api_key} if api_key else {}


def _embedded(library: Any, path: str) -> Any:
    _check_unlocked(Path(path))
    try:
        return library.QdrantClient(path=path, force_disable_check_same_thread=True)
    except (OSError, RuntimeError, sqlite3.Error):
        raise
    except Exception as error:  # of what it finds in the folder: JSON, its models, points
        raise ConfigurationError(f"the store in {path} cannot be read: {type(error).__name__}") from error


def _check_unlocked(folder: Path) -> None:
    """Refuse a store that another process has open, before the engine reads it all, which locks it only then."""
    import portalocker  # noqa: PLC0415 - qdrant-client's own need; it looks for a folder to write when imported

    lock = folder / ".lock"
    if not lock.exists():
        return
    with lock.open("r+") as stream:
        try:
            portalocker.lock(stream, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.exceptions.LockException:
            raise _taken(str(folder)) from None
        portalocker.unlock(stream)


def _taken(place: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"the store in {place} is open in another process: an embedded store serves one at a time, a server many",
        code="store_refused",
    )


def _check_folder(path: str, *, create: bool) -> None:
    if not create and not (Path(path) / "meta.json").is_file():
        raise ConfigurationError(f"there is no Qdrant store in {path}")
