"""Where a search looks for vectors: the protocol of a store, and Qdrant behind it, sync and async."""

import math
import os
import threading
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from producer.qdrant import TIMEOUT_S, QdrantAddress, connect, connect_async
from producer.qdrant_search import (
    Candidate,
    Collection,
    Payload,
    PointId,
    UserId,
    candidates,
    check_field,
    check_open,
    collection_errors,
    described,
    payloads,
    place_of,
    query_arguments,
    resolved,
    retrieve_arguments,
)
from producer.requests import check_timeout
from producer.results import Vector

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient, QdrantClient


class VectorStore(Protocol):
    """What a search needs of a vector store. `place` and `user_field` tell its cached results from those of others."""

    place: str
    user_field: str

    def locate(self) -> Collection:
        """Look which collection it is now.

        Raises:
            StoreUnavailable: there is none (`no_such_collection`), or the store fails.
        """

    def nearest(self, collection: Collection, vector: Vector, user_id: UserId, limit: int) -> list[Candidate]:
        """Find the user's points nearest to a vector of shape (dimension,), nearest first."""

    def fetch(self, collection: Collection, ids: Sequence[PointId], user_id: UserId) -> dict[PointId, Payload]:
        """Read the payloads of those points that are there and the user's."""

    def close(self) -> None:
        """Close what it opened."""


class AsyncVectorStore(Protocol):
    """`VectorStore`, awaited."""

    place: str
    user_field: str

    async def locate(self) -> Collection: ...

    async def nearest(self, collection: Collection, vector: Vector, user_id: UserId, limit: int) -> list[Candidate]: ...

    async def fetch(
        self, collection: Collection, ids: Sequence[PointId], user_id: UserId
    ) -> dict[PointId, Payload]: ...

    async def close(self) -> None: ...


class QdrantStore:
    """A collection or an alias of Qdrant's; it connects at the first call. May be shared by threads.

    A server's may be made and used before a fork: every child gets its own connections. A server has `timeout_s` (whole
    seconds, rounded up) for each answer.

    The points' payloads say in `user_field` whose they are. A user id of digits finds points of the number and of the
    string: 7 and "7" are one user. Where a payload index on that field holds numbers or strings (`integer`, `keyword`,
    `uuid`), it finds those alone, through the index.

    Raises:
        ConfigurationError: the URL is none of Qdrant's, or `user_field` is no path to a field.
    """

    def __init__(
        self, url: str, *, api_key: str = "", user_field: str = "user_id", timeout_s: float = TIMEOUT_S
    ) -> None:
        self._address = QdrantAddress.parse(url)
        check_field(user_field)
        self._api_key = api_key
        self._timeout_s = math.ceil(check_timeout(timeout_s))
        self._client: QdrantClient | None = None
        self._owned = True
        self._closed = False
        self._start_process()
        _STORES.add(self)
        self.place = self._address.place
        self.user_field = user_field

    @classmethod
    def of(cls, client: "QdrantClient", collection: str, *, user_field: str = "user_id") -> Self:
        """Use a client that is open already, such as that of a store in memory; it stays open, with its own timeout."""
        store = cls(f"qdrant+local:.#{collection}", user_field=user_field)
        store._client, store._owned, store.place = client, False, place_of(client)
        return store

    def locate(self) -> Collection:
        """Like `VectorStore.locate`."""
        client, name = self._open(), self._address.collection
        with collection_errors(self.place, name):
            name = resolved(name, client.get_aliases())
            return described(name, client.get_collection(name), self.user_field)

    def nearest(self, collection: Collection, vector: Vector, user_id: UserId, limit: int) -> list[Candidate]:
        """Like `VectorStore.nearest`."""
        with collection_errors(self.place, collection.name):
            arguments = query_arguments(collection, vector, self.user_field, user_id, limit)
            return candidates(self._open().query_points(**arguments))

    def fetch(self, collection: Collection, ids: Sequence[PointId], user_id: UserId) -> dict[PointId, Payload]:
        """Like `VectorStore.fetch`."""
        with collection_errors(self.place, collection.name):
            points = self._open().retrieve(**retrieve_arguments(collection, ids))
            return payloads(points, self.user_field, user_id)

    def close(self) -> None:
        """Close the client, unless it is the application's."""
        with self._opening:
            self._closed = True
            if self._client is not None and self._owned:
                self._client.close()
            self._client = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start_process(self) -> None:
        """Begin anew in a child of fork: on its parent's connections it would read what others have asked for."""
        self._opening = threading.Lock()
        if self._owned and self._address.url:
            # Kept, since to close it takes its lock, which a thread of the parent's may have held.
            self._client_of_parent, self._client = self._client, None

    def _open(self) -> "QdrantClient":
        with self._opening:
            check_open(self._closed)
            if self._client is None:
                self._client = connect(self._address, self._api_key, timeout_s=self._timeout_s)
            return self._client


_STORES: weakref.WeakSet[QdrantStore] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for store in list(_STORES):
        store._start_process()


os.register_at_fork(after_in_child=_after_fork_in_child)


class AsyncQdrantStore:
    """`QdrantStore` for one event loop: the same calls, results and errors, awaited."""

    def __init__(
        self, url: str, *, api_key: str = "", user_field: str = "user_id", timeout_s: float = TIMEOUT_S
    ) -> None:
        self._address = QdrantAddress.parse(url)
        check_field(user_field)
        self._api_key = api_key
        self._timeout_s = math.ceil(check_timeout(timeout_s))
        self._client: AsyncQdrantClient | None = None
        self._owned = True
        self._closed = False
        self.place = self._address.place
        self.user_field = user_field

    @classmethod
    def of(cls, client: "AsyncQdrantClient", collection: str, *, user_field: str = "user_id") -> Self:
        """Like `QdrantStore.of`."""
        store = cls(f"qdrant+local:.#{collection}", user_field=user_field)
        store._client, store._owned, store.place = client, False, place_of(client)
        return store

    async def locate(self) -> Collection:
        """Like `VectorStore.locate`."""
        client, name = self._open(), self._address.collection
        with collection_errors(self.place, name):
            name = resolved(name, await client.get_aliases())
            return described(name, await client.get_collection(name), self.user_field)

    async def nearest(self, collection: Collection, vector: Vector, user_id: UserId, limit: int) -> list[Candidate]:
        """Like `VectorStore.nearest`."""
        with collection_errors(self.place, collection.name):
            arguments = query_arguments(collection, vector, self.user_field, user_id, limit)
            return candidates(await self._open().query_points(**arguments))

    async def fetch(self, collection: Collection, ids: Sequence[PointId], user_id: UserId) -> dict[PointId, Payload]:
        """Like `VectorStore.fetch`."""
        with collection_errors(self.place, collection.name):
            points = await self._open().retrieve(**retrieve_arguments(collection, ids))
            return payloads(points, self.user_field, user_id)

    async def close(self) -> None:
        """Like `QdrantStore.close`."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None and self._owned:
            await client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _open(self) -> "AsyncQdrantClient":
        check_open(self._closed)
        if self._client is None:
            self._client = connect_async(self._address, self._api_key, timeout_s=self._timeout_s)
        return self._client
