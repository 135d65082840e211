"""Semantic search over one collection: performs a search's flow with a producer and a vector store, sync and async."""

import dataclasses
import threading
import time
from types import TracebackType
from typing import Any, Self

from producer import search_cache
from producer.aio import AsyncProducer
from producer.client import Producer
from producer.effects import Steps
from producer.errors import HeadraceError, InvalidRequest
from producer.search_cache import patience_s
from producer.search_call import RERANK_TIMEOUT_S
from producer.search_effects import Embed, Fetch, Locate, Nearest, Rerank, Result, SearchEffect, SearchFlow
from producer.search_flow import SearchCore
from producer.search_results import SearchResults
from producer.stores import AsyncVectorStore, VectorStore


class SemanticSearch:
    """Finds what belongs to a user and fits a query: by vectors, then by reranking up to 20 candidates.

    `text` is a template of the text that is reranked ("{name} - {notes[:500]}"); by default the one that the collection
    was filled with, else its field `text`. Without `rerank`, or if a rerank takes longer than `rerank_timeout_s`, the
    order is the vectors'. The producer and the store stay the caller's to close. Results are cached for 5 minutes for
    each user.

    The query is embedded with the model that filled the collection, if it says so. An alias may be moved meanwhile, to
    a collection of another model too: each search is of one collection, and sees the move within a second.
    """

    def __init__(
        self,
        producer: Producer,
        store: VectorStore,
        *,
        text: str = "",
        rerank: bool = True,
        rerank_timeout_s: float = RERANK_TIMEOUT_S,
    ) -> None:
        self._producer = producer
        self._store = store
        self._core = _core(producer, store, text, rerank, rerank_timeout_s)
        self._others: dict[str, Producer] = {}
        self._making = threading.Lock()
        self._closed = False

    def search(
        self, user_id: str | int, query: str, limit: int = 10, *, timeout_s: float | None = None
    ) -> SearchResults:
        """Search, best first, up to `limit` (100 at most) results. 7 and "7" are the same user.

        A rerank that fails or is late, also `timeout_s` after the call began (by default the producer's), leaves the
        order of the vectors, with `fallback_used=True`; such results are not cached. The vector store has a timeout of
        its own, and the query's embedding has all of `timeout_s`: the first search loads and connects much before it.

        Raises:
            StoreUnavailable: the vector store fails, or has no such collection.
            HeadraceError: the arguments cannot be, or the query cannot be embedded, as of `Producer.embed`.
        """
        return self._run(self._core.search(user_id, query, limit, timeout_s))

    def forget(self, user_id: str | int) -> None:
        """Drop a user's cached results, because that user's data have changed.

        Whatever began before is not served to a search that begins afterwards.

        Raises:
            RedisUnavailable: they could not be dropped; they are served for 5 minutes at most.
        """
        self._run(self._core.forget(user_id))

    def close(self) -> None:
        """Close what was opened for collections of other models. The search cannot be used again."""
        with self._making:
            self._closed = True
            others, self._others = self._others, {}
        for other in others.values():
            other.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, flow: SearchFlow[Result]) -> Result:
        _check_open(self._closed or self._producer._closed)
        steps = Steps(flow)
        while (effect := steps.effect) is not None:
            try:
                answer = self._perform(effect)
            except HeadraceError as error:
                steps.throw(error)
            else:
                steps.send(answer)
        return steps.result

    def _perform(self, effect: SearchEffect) -> Any:
        match effect:
            case Locate():
                return self._store.locate()
            case Embed(model, query, timeout_s):
                return self._embedder(model).embed_result([query], "query", timeout_s=timeout_s)
            case Nearest(collection, vector, user_id, limit):
                return self._store.nearest(collection, vector, user_id, limit)
            case Fetch(collection, ids, user_id):
                return self._store.fetch(collection, ids, user_id)
            case Rerank(query, documents, timeout_s):
                return self._producer.rerank(query, documents, timeout_s=timeout_s)
            case _:
                return search_cache.perform(self._producer._clients.within(patience_s(effect)), effect)

    def _embedder(self, model: str) -> Producer:
        """The producer for a model: ours, or one that is made once for the collections of another model."""
        settings = self._producer.settings
        if model == settings.embed_model:
            return self._producer
        with self._making:
            _check_open(self._closed)
            if model not in self._others:
                self._others[model] = Producer(dataclasses.replace(settings, embed_model=model))
            return self._others[model]


class AsyncSemanticSearch:
    """`SemanticSearch` for one event loop: the same calls, results and errors, awaited."""

    def __init__(
        self,
        producer: AsyncProducer,
        store: AsyncVectorStore,
        *,
        text: str = "",
        rerank: bool = True,
        rerank_timeout_s: float = RERANK_TIMEOUT_S,
    ) -> None:
        self._producer = producer
        self._store = store
        self._core = _core(producer, store, text, rerank, rerank_timeout_s)
        self._others: dict[str, AsyncProducer] = {}
        self._closed = False

    async def search(
        self, user_id: str | int, query: str, limit: int = 10, *, timeout_s: float | None = None
    ) -> SearchResults:
        """Like `SemanticSearch.search`."""
        return await self._run(self._core.search(user_id, query, limit, timeout_s))

    async def forget(self, user_id: str | int) -> None:
        """Like `SemanticSearch.forget`."""
        await self._run(self._core.forget(user_id))

    async def close(self) -> None:
        """Like `SemanticSearch.close`."""
        self._closed = True
        others, self._others = self._others, {}
        for other in others.values():
            await other.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, flow: SearchFlow[Result]) -> Result:
        _check_open(self._closed or self._producer._closed)
        steps = Steps(flow)
        while (effect := steps.effect) is not None:
            try:
                answer = await self._perform(effect)
            except HeadraceError as error:
                steps.throw(error)
            else:
                steps.send(answer)
        return steps.result

    async def _perform(self, effect: SearchEffect) -> Any:
        match effect:
            case Locate():
                return await self._store.locate()
            case Embed(model, query, timeout_s):
                return await self._embedder(model).embed_result([query], "query", timeout_s=timeout_s)
            case Nearest(collection, vector, user_id, limit):
                return await self._store.nearest(collection, vector, user_id, limit)
            case Fetch(collection, ids, user_id):
                return await self._store.fetch(collection, ids, user_id)
            case Rerank(query, documents, timeout_s):
                return await self._producer.rerank(query, documents, timeout_s=timeout_s)
            case _:
                asking = search_cache.perform_async(self._producer._client, effect)
                return await self._producer._within(patience_s(effect), asking)

    def _embedder(self, model: str) -> AsyncProducer:
        """Like `SemanticSearch._embedder`."""
        settings = self._producer.settings
        if model == settings.embed_model:
            return self._producer
        _check_open(self._closed)
        if model not in self._others:
            self._others[model] = AsyncProducer(dataclasses.replace(settings, embed_model=model))
        return self._others[model]


def _core(
    producer: Producer | AsyncProducer,
    store: VectorStore | AsyncVectorStore,
    text: str,
    rerank: bool,
    rerank_timeout_s: float,
) -> SearchCore:
    return SearchCore(
        producer.settings,
        place=store.place,
        user_field=store.user_field,
        text=text,
        rerank=rerank,
        rerank_timeout_s=rerank_timeout_s,
        clock=time.monotonic,
        now_ms=lambda: time.time_ns() // 1_000_000,
    )


def _check_open(closed: bool) -> None:
    if closed:
        raise InvalidRequest("the search or its producer is closed: make a new one", code="closed")
