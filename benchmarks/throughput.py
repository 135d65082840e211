"""Rows a second that cost nothing, everything on, against the bare pipelined sequence with the same window."""

import time
from collections.abc import Callable, Iterable
from itertools import count

from benchmarks import bare, noop_pool
from benchmarks.finding import Finding, Pair, in_turns
from benchmarks.site import site
from producer import Producer
from producer.core import DEFAULT_WINDOW

_ROWS = 4_000
_ROUNDS = 5


def run() -> list[Finding]:
    """Measure one producer and one worker on each side, with texts that nobody has seen before."""
    with (
        site(HEADRACE_EMBED_MODEL=noop_pool.MODEL) as place,
        place.pool("embed", module="benchmarks.noop_pool"),
        place.producer() as producer,
        place.client() as client,
    ):
        pairs = []
        for kind in ("flow", "joined"):
            with bare.answering(kind, client, place.url):
                pairs.append(_measure(producer, bare.Asking(client), kind))
    against = "MGET, XADDs, XREADGROUP, SET + PUBLISH + XACK + XDEL of each row, MGET"
    return [
        _finding(pairs[0], against, 0.5),
        _finding(pairs[1], "the same with one PUBLISH, XACK and XDEL for all that is read at once", None),
    ]


def _measure(producer: Producer, asking: bare.Asking, name: str) -> Pair:
    numbers = count()

    def ours() -> float:
        return _rows_per_s(producer.iter_embed, f"{name} {next(numbers)}")

    def theirs() -> float:
        return _rows_per_s(lambda texts: asking.flow(texts, DEFAULT_WINDOW), f"{name} {next(numbers)}")

    ours(), theirs()
    return in_turns(ours, theirs, rounds=_ROUNDS)


def _finding(pair: Pair, against: str, bound: float | None) -> Finding:
    return Finding(
        target="8",
        what="rows/s with a no-op model, one worker, one producer",
        against=against,
        measured=pair.ratio,
        bound=bound,
        ours=f"{pair.ours:.0f} rows/s",
        theirs=f"{pair.theirs:.0f} rows/s",
        note="digests, single flight, leases and decoding of each row, in Python on both sides",
    )


def _rows_per_s(flow: Callable[[Iterable[str]], Iterable[object]], name: str) -> float:
    texts = (f"run {name}, text {n}: how do I replace this part of the machine?" for n in range(_ROWS))
    started = time.perf_counter()
    rows = sum(1 for _ in flow(texts))
    spent_s = time.perf_counter() - started
    if rows != _ROWS:
        raise RuntimeError(f"{rows} results for {_ROWS} texts")
    return rows / spent_s
