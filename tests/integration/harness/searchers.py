"""People who search all the time, sync and async, each a user of an alias; and who watches where the alias points."""

import asyncio
import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from producer import (
    AsyncQdrantStore,
    AsyncSemanticSearch,
    Producer,
    QdrantStore,
    SearchResults,
    SemanticSearch,
)
from producer.bulk.collections import Collections, open_collections
from tests.integration.harness.qdrant_program import QdrantServer
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

LIMIT = 5
CACHED_QUERIES = ("who repairs a church organ?", "where can I swim?", "somebody for my cows")
_PAUSE_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search that was answered; times are monotonic, in seconds."""

    user: int
    query: str
    began_s: float
    found: SearchResults


@dataclass(frozen=True, kw_only=True)
class Sight:
    """Where the alias pointed at a moment, how many points that collection had, and what state it said it is in."""

    at_s: float
    target: str
    points: int
    state: str


class Searchers:
    """Three users: 1 repeats its queries and reranks, 2 asks anew each time, 3 does so with asyncio."""

    def __init__(self, site: Site, server: QdrantServer, alias: str) -> None:
        self._site, self._server, self._alias = site, server, alias
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self.searches: list[Search] = []
        self.sights: list[Sight] = []
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        self._producer: Producer = self._site.producer()
        self._store = QdrantStore(self._server.url(self._alias))
        works: tuple[Callable[[], None], ...] = (self._repeat, self._ask, self._ask_async, self._watch)
        self._threads = [threading.Thread(target=self._guarded, args=(work,)) for work in works]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)
        self._store.close()
        self._producer.close()

    def await_sight(self, collection: str) -> None:
        """Wait until each user has a result from this collection that is no older than this call."""
        begun_s = time.monotonic()

        def all_see() -> bool:
            fresh = [each for each in list(self.searches) if each.began_s > begun_s]
            return {each.user for each in fresh if each.found.collection == collection} == {1, 2, 3}

        wait_until(lambda: self.failures or all_see(), 60, what=f"searches in {collection}")

    def _repeat(self) -> None:
        with SemanticSearch(self._producer, self._store) as search:
            for query in itertools.cycle(CACHED_QUERIES):
                if self._stopping.wait(_PAUSE_S):
                    return
                began_s = time.monotonic()
                self._note(1, query, began_s, search.search(1, query, LIMIT))

    def _ask(self) -> None:
        with SemanticSearch(self._producer, self._store, rerank=False) as search:
            for number in itertools.count():
                if self._stopping.wait(_PAUSE_S):
                    return
                query, began_s = f"who knows about case {number}?", time.monotonic()
                self._note(2, query, began_s, search.search(2, query, LIMIT))

    def _ask_async(self) -> None:
        asyncio.run(self._ask_in_loop())

    async def _ask_in_loop(self) -> None:
        store = AsyncQdrantStore(self._server.url(self._alias))
        async with (
            store,
            self._site.async_producer() as producer,
            AsyncSemanticSearch(producer, store, rerank=False) as search,
        ):
            for number in itertools.count():
                if self._stopping.is_set():
                    return
                query, began_s = f"a person for matter {number}", time.monotonic()
                self._note(3, query, began_s, await search.search(3, query, LIMIT))
                await asyncio.sleep(_PAUSE_S)

    def _watch(self) -> None:
        with open_collections(self._server.address(self._alias), "") as collections:
            while not self._stopping.wait(_PAUSE_S / 4):
                self.sights.append(look(collections, self._alias))

    def _note(self, user: int, query: str, began_s: float, found: SearchResults) -> None:
        self.searches.append(Search(user=user, query=query, began_s=began_s, found=found))

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self.failures.append(f"{work.__name__}: {error!r}")
            raise


def look(collections: Collections, alias: str) -> Sight:
    """Look where an alias points; the time is from before the look."""
    at_s, target = time.monotonic(), collections.aliases()[alias]
    provenance = collections.layout(target).provenance
    state = provenance.state if provenance else ""
    return Sight(at_s=at_s, target=target, points=collections.count(target), state=state)
