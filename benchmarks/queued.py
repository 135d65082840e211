"""What a queued row costs: Redis memory beyond its text, and the time to enqueue it behind a million others."""

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

from benchmarks.finding import Finding, in_turns
from benchmarks.site import site
from producer.connection import run_script
from producer.wire import scripts
from producer.wire.keys import Kind, Lane, QueueKeys, hint_channel
from producer.wire.messages import JobHeader, Row
from producer.wire.models import OFFLINE, resolve

_WEIGHED_ROWS = 100_000
_TEXT_BYTES = 200
_MANY_ROWS, _FEW_ROWS = 1_000_000, 1_000
_TIMED_ROWS = 2_000
_ROUNDS = 15
_NO_LIMIT = scripts.LaneLimit(rows=10**9, size_bytes=10**12)
_HEADER = JobHeader(kind=Kind.PASSAGE, budget_ms=600_000)


class Lanes:
    """A bulk lane of its own for each namespace; nobody works on them."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._numbers = count()

    def fill(self, namespace: str, rows: int, text_bytes: int = 0) -> float:
        """Enqueue so many new rows; return the microseconds that each took, without the making of its text."""
        queue = QueueKeys.of(resolve("embed", OFFLINE), namespace)
        channel, spent_s = hint_channel("0123456789abcdef", namespace), 0.0
        for part in self._parts(rows, text_bytes):
            started = time.perf_counter()
            run_script(self._client, scripts.enqueue(queue, Lane.BULK, _HEADER, part, channel=channel, limit=_NO_LIMIT))
            spent_s += time.perf_counter() - started
        return spent_s * 1e6 / rows

    def _parts(self, rows: int, text_bytes: int) -> Iterator[list[Row]]:
        for first in range(0, rows, scripts.MAX_ROWS_PER_CALL):
            last = min(first + scripts.MAX_ROWS_PER_CALL, rows)
            texts = [f"{next(self._numbers)} ".ljust(text_bytes - 1, "x") + "." for _ in range(first, last)]
            yield [Row(kind=Kind.PASSAGE, text=text) for text in texts]


def run() -> list[Finding]:
    """Weigh a lane, then time enqueueing on a lane with a million rows and on one with a thousand, in turns."""
    with site() as place, place.client() as client:
        lanes = Lanes(client)
        lanes.fill("warm", _FEW_ROWS)
        before = _used_memory(client)
        lanes.fill("weighed", _WEIGHED_ROWS, _TEXT_BYTES)
        beyond = (_used_memory(client) - before) / _WEIGHED_ROWS - _TEXT_BYTES
        client.flushdb()

        lanes.fill("many", _MANY_ROWS)
        fresh = count()

        def few() -> float:
            namespace = f"few{next(fresh)}"
            lanes.fill(namespace, _FEW_ROWS)
            return lanes.fill(namespace, _TIMED_ROWS)

        cost = in_turns(lambda: lanes.fill("many", _TIMED_ROWS), few, rounds=_ROUNDS)
    return [
        Finding(
            target="10",
            what="Redis memory of a queued row beyond its text",
            against=f"{_TEXT_BYTES} bytes of text, {_WEIGHED_ROWS:,} rows",
            measured=beyond,
            bound=400.0,
            at_least=False,
            unit="B",
            note="each row has an entry on the lane and a wait key of its own, for single flight",
        ),
        Finding(
            target="10",
            what=f"enqueueing behind {_MANY_ROWS:,} rows",
            against=f"behind {_FEW_ROWS:,}",
            measured=cost.ratio,
            bound=1.1,
            at_least=False,
            ours=f"{cost.ours:.1f} us/row",
            theirs=f"{cost.theirs:.1f} us/row",
            note="a server with a million keys more misses the CPU's caches more often",
        ),
    ]


def _used_memory(client: Any) -> int:
    return int(client.info("memory")["used_memory"])
