"""Where the time of a search goes: each stage cold, with the embedding cached and with the results cached, in ms.

Beside each stands the target of the service that Headrace replaces. A time says as much about the machine and the model
as about Headrace, so nothing here has a bound.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import console
from benchmarks.arrangement import rerank_pool
from benchmarks.corpus import queries
from benchmarks.finding import Finding
from benchmarks.site import Site, site
from producer import Producer, QdrantStore, SearchResults, SemanticSearch
from producer.search_call import RERANKED
from producer.wire.models import OFFLINE
from workers.settings import cpu_limit

_RECORDS = Path(console.__file__).parent / "records.jsonl"
_TEXT = "{name} - {jobTitle} - {company} - {notes[:500]}"
_USERS = 10
_COPIES = 4
_SEARCHES = 10
_ROUND_TRIPS = 1000
_TARGETS_MS = {
    "network": 5,
    "embedding": 50,
    "embedding, cached": 5,
    "vector search among 400 points, embedded": 5,
    f"rerank of {RERANKED}": 150,
    "all stages, cold": 210,
    "results cached, all stages": 10,
}


def run(*, scale: float = 1.0) -> list[Finding]:
    """Measure the search path with the offline models, on an embedded Qdrant of a few hundred records."""
    calls = max(2, round(_SEARCHES * scale))
    texts = queries(2 * calls + 2, seed=7)
    warm_up, cold_texts, known_texts = texts[:2], texts[2 : 2 + calls], texts[2 + calls :]
    with _served() as (place, producer, store), SemanticSearch(producer, store, text=_TEXT) as search:
        for query in warm_up:
            search.search(0, query)
        cold, known = [], []
        for number, (new, embedded) in enumerate(zip(cold_texts, known_texts, strict=True)):
            cold.append(search.search(number % _USERS, new))
            producer.embed(embedded)
            known.append(search.search(number % _USERS, embedded))
        cached = [search.search(number % _USERS, query) for number, query in enumerate(cold_texts)]
        network_ms = _round_trip_ms(place)
    _check(cold, lambda one: not one.cached and one.embedding_cached is False)
    _check(known, lambda one: not one.cached and one.embedding_cached is True)
    _check(cached, lambda one: one.cached)
    measured = {
        "network": network_ms,
        "embedding": _p50_ms(one.timings_ms.embedding for one in cold),
        "embedding, cached": _p50_ms(one.timings_ms.embedding for one in known),
        "vector search among 400 points, embedded": _p50_ms(one.timings_ms.vector_search for one in cold + known),
        f"rerank of {RERANKED}": _p50_ms(one.timings_ms.rerank for one in cold + known),
        "all stages, cold": _p50_ms(one.timings_ms.total for one in cold),
        "all stages, embedding cached": _p50_ms(one.timings_ms.total for one in known),
        "results cached, all stages": _p50_ms(one.timings_ms.total for one in cached),
    }
    return [_finding(stage, time_ms) for stage, time_ms in measured.items()]


@contextmanager
def _served() -> Iterator[tuple[Site, Producer, QdrantStore]]:
    """Both pools, and a store in memory with the demo's records: 40 for each user, each of them with 4 users."""
    from qdrant_client import QdrantClient, models  # noqa: PLC0415 - the other benchmarks need no store

    records = [json.loads(line) for line in _RECORDS.read_text("utf-8").splitlines()]
    client = QdrantClient(":memory:")
    with (
        site() as place,
        place.pool("embed", **rerank_pool()),
        place.pool("rerank", **rerank_pool()),
        place.producer() as producer,
    ):
        vectors = producer.embed_many([record["text"] for record in records])
        params = models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
        client.create_collection("contacts", params)
        points = [
            models.PointStruct(
                id=copy * len(records) + number,
                vector=vectors[number].tolist(),
                payload={**record, "user_id": (number + copy) % _USERS},
            )
            for copy in range(_COPIES)
            for number, record in enumerate(records)
        ]
        client.upsert("contacts", points)
        yield place, producer, QdrantStore.of(client, "contacts")
    client.close()


def _round_trip_ms(place: Site) -> float:
    """What takes the place of the HTTP hop: a round trip to Redis."""
    times_ms = []
    with place.client() as client:
        for _ in range(_ROUND_TRIPS):
            started = time.perf_counter()
            client.ping()
            times_ms.append((time.perf_counter() - started) * 1000)
    return median(times_ms)


def _p50_ms(times_ms: Iterator[float | None]) -> float:
    return median(time_ms for time_ms in times_ms if time_ms is not None)


def _check(found: Sequence[SearchResults], fits: Callable[[SearchResults], bool]) -> None:
    if not all(fits(one) and one.results and not one.fallback_used for one in found):
        raise RuntimeError("a search did not take the way that was to be measured")


def _finding(stage: str, time_ms: float) -> Finding:
    target = _TARGETS_MS.get(stage)
    return Finding(
        target="13",
        what=f"search: {stage}, p50 ({OFFLINE} models, {cpu_limit()} cores)",
        against="the replaced service's target" if target else "",
        measured=round(time_ms, 2 if time_ms < 10 else 0),
        bound=None,
        at_least=False,
        unit="ms",
        ours=f"{time_ms:.1f} ms",
        theirs=f"{target} ms" if target else "",
    )
