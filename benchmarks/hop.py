"""The way there and back of one row that costs nothing, against the bare sequence of commands that any queue needs."""

import time
from collections.abc import Callable
from itertools import count

from benchmarks import bare, noop_pool
from benchmarks.finding import Finding, percentile
from benchmarks.site import site

_WARM = 200
_ROUNDS = 20
_HOPS = 100
_IDLE_ROUNDS = 16
_IDLE_S = 1.0

Times = list[tuple[float, float]]
"""How long each of our hops took and each of theirs, in seconds."""


def run() -> list[Finding]:
    """Measure hops of texts that nobody has seen before: in a row, in turns, and one by one after idleness."""
    with (
        site(HEADRACE_EMBED_MODEL=noop_pool.MODEL) as place,
        place.pool("embed", module="benchmarks.noop_pool"),
        place.producer() as producer,
        place.client() as client,
        bare.answering("hops", client, place.url),
    ):
        asking, numbers = bare.Asking(client), count()

        def ours() -> None:
            producer.embed(f"ours {next(numbers)}: where do I find what nobody has asked for yet?")

        def theirs() -> None:
            asking.hop(f"theirs {next(numbers)}: where do I find what nobody has asked for yet?")

        _times(ours, _WARM), _times(theirs, _WARM)
        hot: Times = []
        for number in range(_ROUNDS):
            hot += _both(ours, theirs, _HOPS, ours_first=bool(number % 2))
        idle: Times = []
        for number in range(_IDLE_ROUNDS):
            time.sleep(_IDLE_S)
            idle += _both(ours, theirs, 1, ours_first=bool(number % 2))
    return _findings(hot, "in a row") + _findings(idle, f"after a second of idleness ({_IDLE_ROUNDS} times)")


def _both(ours: Callable[[], None], theirs: Callable[[], None], hops: int, *, ours_first: bool) -> Times:
    if ours_first:
        mine = _times(ours, hops)
        return list(zip(mine, _times(theirs, hops), strict=True))
    other = _times(theirs, hops)
    return list(zip(_times(ours, hops), other, strict=True))


def _times(hop: Callable[[], None], hops: int) -> list[float]:
    durations = []
    for _ in range(hops):
        started = time.perf_counter()
        hop()
        durations.append(time.perf_counter() - started)
    return durations


def _findings(times: Times, how: str) -> list[Finding]:
    findings = []
    for name, percent in (("p50", 50), ("p99", 99)):
        ours, theirs = (percentile([pair[side] for pair in times], percent) for side in (0, 1))
        findings.append(
            Finding(
                target="6",
                what=f"hop with a no-op model {how}, {name}",
                against="GET, XADD, XREADGROUP, SET, PUBLISH, GET",
                measured=ours / theirs,
                bound=1.5,
                at_least=False,
                ours=f"{ours * 1000:.2f} ms",
                theirs=f"{theirs * 1000:.2f} ms",
                note="single flight, a second look-up and the hand-over between threads, in Python on both sides",
            )
        )
    return findings
