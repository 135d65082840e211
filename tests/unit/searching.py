"""A rig that performs a search's effects: Redis in memory, an embedded Qdrant in memory, fake vectors and scores."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import redis
from qdrant_client import QdrantClient, models

from producer.effects import Steps
from producer.errors import HeadraceError
from producer.provenance import Provenance
from producer.results import EmbedResult, RankedDocument, RerankResult
from producer.search_cache import perform
from producer.search_effects import Embed, Fetch, Locate, Nearest, Rerank, SearchEffect, SearchFlow
from producer.search_flow import SearchCore
from producer.search_results import SearchResults
from producer.settings import ProducerSettings
from producer.stores import QdrantStore
from producer.wire.models import resolve
from tests.unit.fakes import ManualClock, redis_in_memory, vector_of

ALIAS = "contacts"
STAGE_S = 0.001
NOW_MS = 1_763_900_000_000
TEXTS = ["a quiet lake", "a tax form", "a deep pool", "an old church organ"]


def provenance(model: str, **changes: Any) -> Provenance:
    """What a re-embedding with that model writes."""
    told: dict[str, Any] = {
        "model": model,
        "tag": resolve("embed", model).tag,
        "dimension": 4,
        "kind": "passage",
        "template": "{text}",
        "source": "test",
        "state": "complete",
    }
    return Provenance(**{**told, **changes})


def make_collection(client: QdrantClient, name: str, *, dimension: int = 4, origin: Provenance | None = None) -> None:
    """Make an empty collection."""
    config = models.VectorParams(size=dimension, distance=models.Distance.DOT)
    client.create_collection(name, config, metadata=origin.as_metadata() if origin else None)


def fill(client: QdrantClient, name: str, payloads: Mapping[int, dict[str, Any]], *, dimension: int = 4) -> None:
    """Put points into a collection: the smaller the id, the nearer to any query."""
    points = [
        models.PointStruct(id=point, vector=[1000.0 - point] * dimension, payload=payload)
        for point, payload in payloads.items()
    ]
    client.upsert(name, points)


def point_alias(client: QdrantClient, collection: str, alias: str = ALIAS) -> None:
    """Let the alias stand for a collection."""
    create = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=alias))
    client.update_collection_aliases([create])


@contextmanager
def qdrant() -> Iterator[QdrantClient]:
    """An embedded Qdrant in memory."""
    client = QdrantClient(":memory:")
    yield client
    client.close()


class SearchRig:
    """Performs effects one by one; each takes a millisecond. A document's score is its length.

    `failing` has an error for a kind of effect; `before` is called once before the next effect of a kind.
    """

    def __init__(self, client: QdrantClient, *, text: str = "", rerank: bool = True, **settings: Any) -> None:
        self.qdrant = client
        self.redis: redis.Redis = redis_in_memory()
        self.clock = ManualClock()
        self.dimensions: dict[str, int] = {}
        self.failing: dict[type, HeadraceError] = {}
        self.before: dict[type, Callable[[], Any]] = {}
        self.performed: list[SearchEffect] = []
        self.store = QdrantStore.of(client, ALIAS)
        self.settings = ProducerSettings(**{"embed_model": "offline", "rerank_model": "offline", **settings})
        self.core = self.another_core(text=text, rerank=rerank)

    def another_core(self, *, text: str = "", rerank: bool = True, **changes: Any) -> SearchCore:
        """The core of another `SemanticSearch` on the same store and cache."""
        told: dict[str, Any] = {"place": self.store.place, "user_field": self.store.user_field, **changes}
        return SearchCore(self.settings, text=text, rerank=rerank, clock=self.clock, now_ms=lambda: NOW_MS, **told)

    def search(self, user: str | int = 1, query: str = "swim", limit: int = 10, **changes: Any) -> SearchResults:
        core: SearchCore = changes.get("core", self.core)
        found: SearchResults = self.run(core.search(user, query, limit, changes.get("timeout_s")))
        return found

    def forget(self, user: str | int = 1) -> None:
        self.run(self.core.forget(user))

    def run(self, flow: SearchFlow[Any]) -> Any:
        steps = Steps(flow)
        while (effect := steps.effect) is not None:
            self.before.pop(type(effect), lambda: None)()
            self.performed.append(effect)
            self.clock.advance(STAGE_S)
            try:
                if type(effect) in self.failing:
                    raise self.failing[type(effect)]
                answer = self._perform(effect)
            except HeadraceError as error:
                steps.throw(error)
            else:
                steps.send(answer)
        return steps.result

    def kinds(self) -> list[str]:
        """The names of the effects since the last time."""
        names = [type(effect).__name__ for effect in self.performed]
        self.performed.clear()
        return names

    def _perform(self, effect: SearchEffect) -> Any:
        match effect:
            case Locate():
                return self.store.locate()
            case Embed(model, query, _):
                vector = np.resize(vector_of(query) + 1, self.dimensions.get(model, 4))
                return EmbedResult(embeddings=vector[np.newaxis], cached=(True,), model=model, latency_ms=1.0)
            case Nearest(collection, vector, user_id, limit):
                return self.store.nearest(collection, vector, user_id, limit)
            case Fetch(collection, ids, user_id):
                return self.store.fetch(collection, ids, user_id)
            case Rerank(_, documents, _):
                order = sorted(range(len(documents)), key=lambda index: -len(documents[index]))
                ranked = [
                    RankedDocument(index=index, score=float(len(documents[index])), document=documents[index])
                    for index in order
                ]
                return RerankResult(results=tuple(ranked), model="offline", latency_ms=1.0)
            case _:
                return perform(self.redis, effect)


def contacts(texts: list[str] = TEXTS, user: str | int = 1, *, first: int = 1) -> dict[int, dict[str, Any]]:
    """Payloads of a user's points."""
    return {number: {"user_id": user, "text": text} for number, text in enumerate(texts, first)}
