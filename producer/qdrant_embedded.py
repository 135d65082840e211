"""Opens an embedded store of Qdrant once per process and shares it: its folder serves one client at a time."""

import asyncio
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

_EXPECTED_WARNINGS = "Local mode is not recommended|Payload indexes have no effect"


class SharedStore:
    """One holder's hold on an open store: the client's methods, one at a time. Whoever closes last closes the store."""

    def __init__(self, path: str, make: Callable[[], Any]) -> None:
        """Open the folder, or take part in what is open; `make` opens it."""
        self._store = _hold(str(Path(path).resolve()), make)
        self._release = weakref.finalize(self, _let_go, self._store)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._store.client, name)
        if not callable(attribute):
            return attribute

        @wraps(attribute)
        def call(*arguments: Any, **keywords: Any) -> Any:
            if not self._release.alive:
                raise RuntimeError("this client of Qdrant is closed")
            with self._store.lock, quiet():
                return attribute(*arguments, **keywords)

        return call

    def upsert(self, collection_name: str, points: Any, **keywords: Any) -> Any:
        """The client's, but the disk is waited for once and not for each point; when it returns, points are kept."""
        call = self.__getattr__("upsert")
        with self._store.lock, _synced_once(self._store.client, collection_name):
            return call(collection_name, points, **keywords)

    def close(self) -> None:
        """Give the hold back; once is enough."""
        self._release()


class AsyncSharedStore:
    """The same for asyncio: calls run in threads, since the embedded engine computes while it is called."""

    def __init__(self, path: str, make: Callable[[], Any]) -> None:
        self._shared = SharedStore(path, make)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._shared, name)
        if not callable(attribute):
            return attribute

        @wraps(attribute)
        async def call(*arguments: Any, **keywords: Any) -> Any:
            return await asyncio.to_thread(attribute, *arguments, **keywords)

        return call

    async def close(self) -> None:
        """Give the hold back; once is enough."""
        self._shared.close()


class _Store:
    """An open folder, how many hold it, and the lock that its calls take."""

    def __init__(self, path: str, client: Any) -> None:
        self.path = path
        self.client = client
        self.holders = 0
        self.lock = threading.RLock()


# Of the process, as the lock on a folder is; whoever asks for a folder cannot know who else in it has it open.
_stores: dict[str, _Store] = {}
_guard = threading.RLock()


def _hold(path: str, make: Callable[[], Any]) -> _Store:
    with _guard:
        store = _stores.get(path)
        if store is None:
            with quiet():
                store = _stores[path] = _Store(path, make())
        store.holders += 1
        return store


def _let_go(store: _Store) -> None:
    with _guard:
        store.holders -= 1
        if store.holders:
            return
        del _stores[store.path]
        with store.lock:
            store.client.close()


@contextmanager
def _synced_once(client: Any, collection: str) -> Iterator[None]:
    """The engine commits each point alone, with a wait for the disk; in a write-ahead log those are put off to the end.

    That reaches into the engine, which has no setting for it: where it cannot, writing is slow and as safe.
    """
    try:
        connection = client._client._get_collection(collection).storage.storage
    except (AttributeError, ValueError):
        yield
        return
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    try:
        yield
    finally:
        connection.execute("PRAGMA wal_checkpoint(FULL)").fetchall()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the client's warnings that an embedded store is a small one, which the README says."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_EXPECTED_WARNINGS)
        yield
