"""Workers are killed while they work: every row is answered, and right, and little is computed twice."""

import os
import random
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.conftest import StartPool
from tests.integration.harness.fake_model import Record, vector_of
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

ROWS = 600
WORKERS = 3
BATCH_ROWS = 12
WORDS = 5
"""Of each row; the fake model takes a word for a token."""

KILLS = 8
KILLS_OF_ONE = 3
"""A pool gives up after five failures in a row of one place; that is not what this test is about."""


def test_rows_survive_the_death_of_their_workers(
    solo: Site, start_pool: StartPool, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"row {number} of the chaos" for number in range(ROWS)]
    record = Record(solo.client, solo.namespace)
    pool = start_pool(
        solo, HEADRACE_PROCESSES=str(WORKERS), HEADRACE_BATCH_TOKENS=str(BATCH_ROWS * WORDS), FAKE_ROW_MS="5"
    )
    pool.await_healthy(WORKERS)
    chance = random.Random(20240)
    killed: list[tuple[str, int]] = []

    with solo.producer() as producer, ThreadPoolExecutor(1) as threads:
        flood = threads.submit(lambda: list(producer.iter_embed(texts, window=200)))
        for kill in range(KILLS):
            progress = (kill + 1) * ROWS // (KILLS + 1)
            wait_until(lambda least=progress: len(record.read()) >= least, what="progress")  # type: ignore[misc]
            name, victim = wait_until(lambda: _choose(chance, pool.workers(), killed), what="a worker to kill")
            os.kill(victim, signal.SIGKILL)
            killed.append((name, victim))
        vectors = flood.result(120)
        solo.await_empty()
        assert producer.queue_state("embed").dead == 0

    assert len(vectors) == ROWS
    assert all(np.array_equal(vector, vector_of(text)) for text, vector in zip(texts, vectors, strict=True))
    computed = Counter(record.texts())
    assert computed.keys() == set(texts)
    twice = sum(times - 1 for times in computed.values())
    with capsys.disabled():
        print(f"\n{KILLS} kills of {WORKERS} workers: {twice} of {ROWS} rows computed again ({twice / ROWS:.1%})")
    assert twice <= KILLS * BATCH_ROWS, "a kill repeats no more than the batch in hand"


def _choose(chance: random.Random, workers: dict[str, int], killed: list[tuple[str, int]]) -> tuple[str, int] | None:
    """One of the healthy workers, but none whose place has been hit too often, and none that is dying already."""
    times = Counter(name for name, _ in killed)
    fresh = sorted(worker for worker in workers.items() if times[worker[0]] < KILLS_OF_ONE and worker not in killed)
    return chance.choice(fresh) if fresh else None
