"""Rows a second that cost nothing, everything on, against the bare pipelined sequence with the same window."""

import time
from collections.abc import Callable, Iterable
from itertools import count

from benchmarks import bare, noop_pool
from benchmarks.finding import Finding, in_turns
from benchmarks.site import site
from producer.core import DEFAULT_WINDOW

_ROWS = 6_000
_ROUNDS = 7


def run() -> list[Finding]:
    """Measure one producer and one worker on each side, with texts that nobody has seen before."""
    with (
        site(HEADRACE_EMBED_MODEL=noop_pool.MODEL) as place,
        place.pool("embed", module="benchmarks.noop_pool"),
        place.producer() as producer,
        place.client() as client,
        bare.answering("flow", client, place.url),
    ):
        asking, numbers = bare.Asking(client), count()

        def ours() -> float:
            return _rows_per_s(producer.iter_embed, next(numbers))

        def theirs() -> float:
            return _rows_per_s(lambda texts: asking.flow(texts, DEFAULT_WINDOW), next(numbers))

        ours(), theirs()
        pair = in_turns(ours, theirs, rounds=_ROUNDS)
    return [
        Finding(
            target="8",
            what="rows/s with a no-op model, one worker, one producer",
            against="MGET, XADDs, XREADGROUP, SET + PUBLISH + XACK + XDEL, MGET",
            measured=pair.ratio,
            bound=0.5,
            ours=f"{pair.ours:.0f} rows/s",
            theirs=f"{pair.theirs:.0f} rows/s",
        )
    ]


def _rows_per_s(flow: Callable[[Iterable[str]], Iterable[object]], run_number: int) -> float:
    texts = (f"run {run_number}, text {n}: how do I replace this part of the machine?" for n in range(_ROWS))
    started = time.perf_counter()
    rows = sum(1 for _ in flow(texts))
    spent_s = time.perf_counter() - started
    if rows != _ROWS:
        raise RuntimeError(f"{rows} results for {_ROWS} texts")
    return rows / spent_s
