"""Workers are killed and stopped while they work: every row is answered, and right, and little is computed twice."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from producer import Producer
from producer.results import Vector
from tests.chaos.campaign import Report, Sizes, chance, percent
from tests.chaos.crashes import live_for
from tests.chaos.journal import Begun, Journal
from tests.chaos.meters import load_left
from tests.chaos.noting_model import HOLD
from tests.chaos.noting_pool import PROGRAM
from tests.chaos.strikes import Striker
from tests.chaos.texts import mixed_texts, name_of
from tests.conftest import StartPool
from tests.integration.harness.fake_model import vector_of, vectors_of
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until
from workers.pulse import BEAT_S
from workers.reader import LOOK_AHEAD_ROWS

WORKERS = 3
SHORT_STRIKES = 8
LEASE_S = 1.5
CALL_ROWS = 30
"""Rows of one interactive call."""

LONGEST_ABANDONED_S = 30.0
"""A deadline against a hang: 10 s are promised, and the report says what it was."""

Answers = list[Future[list[Vector]]]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """What the pools have begun."""
    return Journal(tmp_path / "journal")


def test_rows_survive_the_death_of_their_workers(
    solo: Site, start_pool: StartPool, journal: Journal, sizes: Sizes, seed: int, report: Report
) -> None:
    texts = mixed_texts(sizes(short=600, long=20_000), chance(seed, "texts"))
    settings = {"HEADRACE_LEASE_S": str(LEASE_S), "HEADRACE_BATCH_TOKENS": "256"}
    settings |= {"CHAOS_JOURNAL": str(journal.folder), "CHAOS_ROW_MS": sizes(short="5", long="2")}
    pool = start_pool(solo, PROGRAM, HEADRACE_PROCESSES=str(WORKERS), **settings)
    pool.await_healthy(WORKERS)
    started = time.monotonic()
    with (
        solo.producer(timeout_s=300.0) as producer,
        ThreadPoolExecutor(3) as threads,
        Striker(pool, journal, chance(seed, "victims"), lease_s=LEASE_S) as striker,
    ):
        answers = _ask(producer, threads, texts)
        _strike_until_answered(striker, answers, sizes, chance(seed, "pauses"), lambda: _done(journal) / len(texts))
        vectors = [vector for answer in answers for vector in answer.result(300)]
        took_s = time.monotonic() - started
        solo.await_empty()
        dead = producer.queue_state("embed").dead

    by_kills, by_stops = _computed_again(journal.read(), striker.killed)
    report(
        "workers are killed and stopped",
        {
            "rows": len(texts),
            "killed": len(striker.killed),
            "stopped beyond their lease": len(striker.stopped),
            "rows computed again after a kill": f"{by_kills} ({percent(by_kills, len(texts))})",
            "after a stop": f"{by_stops} ({percent(by_stops, len(texts))})",
            "dead letters": dead,
            "seconds": f"{took_s:.0f}",
            "seed": seed,
        },
    )
    assert np.array_equal(np.stack(vectors), vectors_of(texts))
    assert not dead
    assert not load_left(solo)
    assert journal.computed().keys() == {name_of(text) for text in texts}
    assert by_stops <= len(striker.stopped) * 2 * LOOK_AHEAD_ROWS, "a stop repeats no more than a worker has in hand"


def test_an_abandoned_row_starts_in_another_pool(
    solo: Site, start_pool: StartPool, journal: Journal, sizes: Sizes, seed: int, report: Report
) -> None:
    waits: list[float] = []
    draws = chance(seed, "moments")
    # The long form measures the default.
    settings = {"CHAOS_JOURNAL": str(journal.folder)} | sizes(short={"HEADRACE_LEASE_S": "1"}, long={})
    pool = start_pool(solo, PROGRAM, **settings)
    pool.await_healthy()
    with solo.producer(timeout_s=120.0) as producer, ThreadPoolExecutor(1) as threads:
        for number in range(sizes(short=1, long=10)):
            row = f"{HOLD}-{number}"
            answer = threads.submit(producer.embed, row)
            wait_until(lambda row=row: journal.computed()[row], what="a row in hand")  # type: ignore[misc]
            successor = start_pool(solo, PROGRAM, **settings)
            successor.await_healthy()
            live_for(draws.uniform(0, sizes(short=0, long=BEAT_S)))
            killed_at = time.monotonic()
            pool.kill_all()
            begun = wait_until(_second_beginning(journal, row), LONGEST_ABANDONED_S, what="the row's new beginning")
            waits.append(begun - killed_at)
            journal.release(row)
            assert np.array_equal(answer.result(60), vector_of(row))
            solo.await_empty()
            pool = successor
    report(
        "a pool is killed, parent and all",
        {
            "times": len(waits),
            "seconds until its row starts in another pool, least": f"{min(waits):.1f}",
            "median": f"{np.median(waits):.1f}",
            "most": f"{max(waits):.1f}",
            "seed": seed,
        },
    )


def _ask(producer: Producer, threads: ThreadPoolExecutor, texts: list[str]) -> Answers:
    """One caller on the bulk lane with most rows, two on the interactive lane with the others, in order of texts."""
    bulk, first = len(texts) * 6 // 10, len(texts) * 8 // 10

    def interactive(texts: list[str]) -> list[Vector]:
        return [vector for some in _chunks(texts) for vector in producer.embed_many(some)]

    return [
        threads.submit(lambda: list(producer.iter_embed(texts[:bulk], window=200))),
        threads.submit(interactive, texts[bulk:first]),
        threads.submit(interactive, texts[first:]),
    ]


def _chunks(texts: list[str]) -> Iterator[list[str]]:
    for first in range(0, len(texts), CALL_ROWS):
        yield texts[first : first + CALL_ROWS]


def _strike_until_answered(
    striker: Striker, answers: Answers, sizes: Sizes, draws: random.Random, progress: Callable[[], float]
) -> None:
    """Strike until all are answered, about once a second; in the short form a few times, at points of progress."""

    def answered() -> bool:
        return all(answer.done() for answer in answers)

    for strike in range(sizes(short=SHORT_STRIKES, long=1_000_000)):
        if sizes.is_long:
            due = time.monotonic() + draws.uniform(0.5, 1.5)
            wait_until(lambda due=due: answered() or time.monotonic() > due, what="the next strike")  # type: ignore[misc]
        else:
            least = (strike + 1) / (SHORT_STRIKES + 1)
            wait_until(lambda least=least: progress() >= least, what="progress")  # type: ignore[misc]
        if answered():
            return
        striker.strike()


def _done(journal: Journal) -> int:
    return len(journal.computed())


def _second_beginning(journal: Journal, row: str) -> Callable[[], float | None]:
    """When the row began for the second time, once it has."""

    def look() -> float | None:
        begun = [batch.at_s for batch in journal.read() if row in batch.rows]
        return begun[1] if len(begun) > 1 else None

    return look


def _computed_again(batches: list[Begun], killed: list[int]) -> tuple[int, int]:
    """How many computations too many there were because of a kill, which a batch in hand explains, and otherwise."""
    computed = Counter(row for batch in batches for row in batch.rows)
    last = {batch.pid: batch for batch in batches}
    lost = Counter(row for pid in killed if pid in last for row in last[pid].rows)
    again = {row: times - 1 for row, times in computed.items()}
    by_kills = sum(min(times, lost[row]) for row, times in again.items())
    return by_kills, sum(again.values()) - by_kills
