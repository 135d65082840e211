"""Ranking 20 documents: the queue against fastembed's cross-encoder in the same process, by one caller and by eight."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from benchmarks import direct
from benchmarks.arrangement import rerank_pool, told
from benchmarks.corpus import documents, queries
from benchmarks.finding import Finding, in_turns, percentile
from benchmarks.site import site

_DOCUMENTS = 20
_CALLERS = 8
_SINGLE_CALLS = 12
_CALLS_OF_EACH = 1

Rank = Callable[[str, Sequence[str]], object]


def run(*, scale: float = 1.0) -> list[Finding]:
    """Measure target 9."""
    model = direct.reranker()

    def in_process(query: str, candidates: Sequence[str]) -> object:
        return list(model.rerank(query, candidates))

    with site() as place, place.pool("rerank", **rerank_pool()), place.producer() as producer:
        for rank in (producer.rerank, in_process):
            rank("warm-up", documents(_DOCUMENTS, seed=-1))
        return [_alone(producer.rerank, in_process, scale), _together(producer.rerank, in_process, scale)]


def _alone(ours: Rank, theirs: Rank, scale: float) -> Finding:
    calls = max(2, round(_SINGLE_CALLS * scale))
    mine: list[float] = []
    others: list[float] = []
    for number, query in enumerate(queries(calls, seed=1)):
        candidates = documents(_DOCUMENTS, seed=number)
        sides = [(ours, mine), (theirs, others)]
        for rank, times_ms in sides if number % 2 else reversed(sides):
            started = time.perf_counter()
            rank(query, candidates)
            times_ms.append((time.perf_counter() - started) * 1000)
    p50, other_p50 = percentile(mine, 50), percentile(others, 50)
    return Finding(
        target="9",
        what=f"rerank of {_DOCUMENTS} documents, p50 ({told(rerank_pool())})",
        against="TextCrossEncoder.rerank in process",
        measured=p50 / other_p50,
        bound=1.15,
        at_least=False,
        ours=f"{p50:.0f} ms",
        theirs=f"{other_p50:.0f} ms",
        note="one process of the pool works on a call alone",
    )


def _together(ours: Rank, theirs: Rank, scale: float) -> Finding:
    each = max(1, round(_CALLS_OF_EACH * scale))
    seeds = count(1_000), count(1_000)

    def rate(rank: Rank, seed: int) -> float:
        calls = _CALLERS * each
        jobs = [
            (query, documents(_DOCUMENTS, seed=seed * calls + number))
            for number, query in enumerate(queries(calls, seed))
        ]
        with ThreadPoolExecutor(_CALLERS) as callers:
            started = time.perf_counter()
            list(callers.map(lambda job: rank(*job), jobs))
            return calls * _DOCUMENTS / (time.perf_counter() - started)

    pair = in_turns(lambda: rate(ours, next(seeds[0])), lambda: rate(theirs, next(seeds[1])), rounds=2)
    return Finding(
        target="9",
        what=f"rerank by {_CALLERS} callers at once ({told(rerank_pool())})",
        against=f"{_CALLERS} threads, one TextCrossEncoder",
        measured=pair.ratio,
        bound=1.3,
        ours=f"{pair.ours:.0f} rows/s",
        theirs=f"{pair.theirs:.0f} rows/s",
        note="the model: the same pairs on the same cores, batched better",
    )
