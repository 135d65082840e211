"""Interactive queries beside an unending bulk flood: how long they wait, and what they cost the flood."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from random import Random

import redis

from benchmarks.arrangement import embed_pool, told
from benchmarks.corpus import queries
from benchmarks.finding import Finding, in_turns, percentile
from benchmarks.flood import flood
from benchmarks.site import site
from producer import Producer

_QUERIES = 200
_LONGEST_PAUSE_S = 0.05
_QUERIES_PER_S = 5.0
_STRETCH_S = 5.0
_ROUNDS = 3


def run(*, scale: float = 1.0) -> list[Finding]:
    """Measure targets 4 and 5."""
    with (
        site() as place,
        place.pool("embed", **embed_pool()),
        place.producer() as producer,
        place.client() as client,
    ):
        asked = _fresh()
        for _ in range(20):
            producer.embed(next(asked))
        calls = max(10, round(_QUERIES * scale))
        at_rest = _latencies_ms(producer, asked, calls)
        with flood(place):
            before = producer.queue_state("embed").counters
            lost = _lost(producer, client, asked, scale)
            # Before the queries follow each other closely: their batches are small, and not what is asked for.
            batch_ms = _batch_ms(before, producer.queue_state("embed").counters)
            flooded = _latencies_ms(producer, asked, calls)
    return [_immunity(at_rest, flooded, batch_ms), lost]


def _immunity(at_rest: list[float], flooded: list[float], batch_ms: float) -> Finding:
    rest, wet = percentile(at_rest, 99), percentile(flooded, 99)
    return Finding(
        target="4",
        what=f"p99 of an interactive query during a bulk flood ({told(embed_pool())})",
        against=f"its p99 at rest ({rest:.1f} ms) plus one bulk batch ({batch_ms:.1f} ms)",
        measured=wet / (rest + batch_ms),
        bound=1.2,
        at_least=False,
        ours=f"{wet:.1f} ms (p50 {percentile(flooded, 50):.1f})",
        theirs=f"{rest + batch_ms:.1f} ms (p50 at rest {percentile(at_rest, 50):.1f})",
        note="the longest batch is longer than the average one, and everybody shares the cores",
    )


def _lost(producer: Producer, client: redis.Redis, asked: Iterator[str], scale: float) -> Finding:
    stretch_s = max(1.0, _STRETCH_S * scale)

    def with_queries() -> float:
        with _asking(producer, asked) as done:
            return _bulk_rows_per_s(client, stretch_s, done)

    pair = in_turns(with_queries, lambda: _bulk_rows_per_s(client, stretch_s, _Count()), rounds=_ROUNDS)
    return Finding(
        target="5",
        what=f"bulk rows/s kept beside {_QUERIES_PER_S:.0f} interactive queries/s ({told(embed_pool())})",
        against="the flood alone",
        measured=pair.ratio,
        bound=0.9,
        ours=f"{pair.ours:.1f} rows/s",
        theirs=f"{pair.theirs:.1f} rows/s",
        note="a query breaks up the bulk batches, and its caller shares the cores",
    )


@dataclass
class _Count:
    """Interactive rows answered so far."""

    rows: int = 0


@contextmanager
def _asking(producer: Producer, asked: Iterator[str]) -> Iterator[_Count]:
    """Ask new queries at a steady rate from a thread until the block ends."""
    done, ended = _Count(), threading.Event()

    def ask() -> None:
        due = time.monotonic()
        while not ended.is_set():
            producer.embed(next(asked))
            done.rows += 1
            due += 1 / _QUERIES_PER_S
            ended.wait(max(0.0, due - time.monotonic()))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield done
    finally:
        ended.set()
        thread.join()


def _bulk_rows_per_s(client: redis.Redis, stretch_s: float, interactive: _Count) -> float:
    """Count the replies that appear: every row leaves one key, and no counter is as fresh."""
    rows, replies, started = interactive.rows, _replies(client), time.perf_counter()
    time.sleep(stretch_s)
    appeared = _replies(client) - replies - (interactive.rows - rows)
    return max(1, appeared) / (time.perf_counter() - started)  # never 0: it is divided by


def _replies(client: redis.Redis) -> int:
    return sum(1 for _ in client.scan_iter(match="emb:*", count=10_000))


def _latencies_ms(producer: Producer, asked: Iterator[str], calls: int) -> list[float]:
    """Ask one query after another, each new and after a pause of chance, so that none follows the batches' beat."""
    random = Random(0)  # noqa: S311
    found = []
    for _ in range(calls):
        time.sleep(random.uniform(0, _LONGEST_PAUSE_S))
        text = next(asked)
        started = time.perf_counter()
        producer.embed(text)
        found.append((time.perf_counter() - started) * 1000)
    return found


def _batch_ms(before: dict[str, int], after: dict[str, int]) -> float:
    batches = after.get("batches", 0) - before.get("batches", 0)
    return (after.get("busy_ms", 0) - before.get("busy_ms", 0)) / max(1, batches)


def _fresh() -> Iterator[str]:
    for seed in count(1):
        yield from queries(2_000, seed)  # more than are asked: only texts of one call are all distinct
