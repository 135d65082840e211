"""Redis is killed while it serves: what it keeps is answered, what it loses is brought back by those who wait."""

import random
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from console.redis_server import RedisServer
from producer import Producer
from producer.results import Vector
from producer.wire.keys import Lane
from tests.chaos.applications import Forgetful, Patience
from tests.chaos.campaign import Report, Sizes, chance, percent
from tests.chaos.crashes import (
    DURABILITIES,
    Crashes,
    Durability,
    await_loaded,
    cut,
    kept_rows,
    live_for,
    size_bytes,
    weigh_down,
)
from tests.chaos.journal import Journal
from tests.chaos.meters import load_left
from tests.chaos.noting_pool import PROGRAM
from tests.chaos.texts import mixed_texts
from tests.conftest import StartPool, make_site
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import vectors_of
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

LOAD_DELAY = "-8"
"""Loading is slowed down, so that clients meet it: of so many commands one sleeps for a moment (redis's debugDelay)."""

CALL_ROWS = 10
PAUSES_S = (0.0, 0.0, 0.2, 0.2)
"""What each caller of the interactive lane does between two calls: those that pause begin a call in an outage."""

WAITING_ROWS = 20

_site = contextmanager(make_site)


def test_a_redis_that_dies_again_and_again(
    server_program: Path, tmp_path: Path, start_pool: StartPool, sizes: Sizes, seed: int, report: Report
) -> None:
    texts = mixed_texts(sizes(short=400, long=20_000), chance(seed, "texts"))
    journal, draws = Journal(tmp_path / "journal"), chance(seed, "crashes")
    extra = ("--appendfsync", "always", "--key-load-delay", LOAD_DELAY)
    with (
        RedisServer(server_program, data_directory=tmp_path / "redis", extra=extra) as server,
        _site(server.url) as site,
        site.producer(timeout_s=120.0) as producer,
        Forgetful(site, name="forgotten", pause_s=0.05, again=True) as forgetful,
        ThreadPoolExecutor(len(PAUSES_S) + 1) as threads,
    ):
        crashes = Crashes(server, site.client, draws, longest_s=sizes(short=1.5, long=4.0))
        weigh_down(site.client)
        pool = start_pool(site, PROGRAM, HEADRACE_PROCESSES="2", CHAOS_JOURNAL=str(journal.folder), CHAOS_ROW_MS="2")
        workers = pool.await_healthy(2)
        callers = Callers(producer, threads, texts)
        _crash_until_answered(crashes, callers, sizes, draws, lambda: len(journal.computed()) / len(texts))
        vectors = callers.vectors()
        forgetful.stop()
        crashes.await_loaded()
        _await_rest(site)
        assert producer.queue_state("embed").dead == 0
        lost = producer.cached(list(forgetful.acknowledged)).count(False)
        assert pool.await_healthy(2) == workers, "no worker was restarted"
        crashes.note_refusals()

    computed = journal.computed()
    report(
        "Redis is killed, appendfsync always",
        {
            "rows": len(texts),
            "crashes": crashes.count,
            "acknowledged rows nobody waits for": len(forgetful.acknowledged),
            "lost": lost,
            "computed again": percent(computed.total() - len(computed), len(computed)),
            "commands that met a loading server": crashes.refused_loading,
            **callers.figures(),
            "seed": seed,
        },
    )
    assert np.array_equal(np.stack(vectors), vectors_of(texts))
    assert not lost, "what Redis has taken is answered"
    assert crashes.refused_loading, "nobody has met a server that loads"


@pytest.mark.parametrize("kind", DURABILITIES)
def test_what_a_crash_costs(
    kind: str, server_program: Path, tmp_path: Path, sizes: Sizes, seed: int, report: Report
) -> None:
    durability, draws = DURABILITIES[kind], chance(seed, kind)
    losses = [
        _crash_once(durability, server_program, tmp_path / str(crash), draws)
        for crash in range(sizes(short=1, long=10))
    ]
    lost = sum(len(loss.ages_s) for loss in losses)
    taken = sum(loss.taken for loss in losses)
    report(
        f"what a crash costs, {kind}",
        {
            "crashes": len(losses),
            "rows acknowledged": taken,
            "lost": f"{lost} ({percent(lost, taken)})",
            "the oldest of them acknowledged": f"{max(max(loss.ages_s, default=0) for loss in losses):.2f} s before",
            "waiting callers answered": "all",
            "longest wait for an answer after the restart": f"{max(loss.healed_s for loss in losses):.1f} s",
            "seed": seed,
        },
    )
    assert all(age_s <= loss.may_be_s for loss in losses for age_s in loss.ages_s)
    if durability.power_cut or durability.fsync is None:
        assert lost, "the crash was none"


def _await_rest(site: Site) -> None:
    """Wait until the rows that nobody waits for are computed, too, and nothing is left."""
    wait_until(lambda: site.waiting(Lane.BULK) == 0, 60, what="the end of what nobody waits for")
    site.await_empty()
    assert not load_left(site)


class Callers:
    """One on the bulk lane with half of the rows, the others on the interactive lane; answers in order of texts."""

    def __init__(self, producer: Producer, threads: ThreadPoolExecutor, texts: list[str]) -> None:
        self._interactive, self._bulk = Patience(), Patience()
        half = len(texts) // 2
        share = -(-(len(texts) - half) // len(PAUSES_S))
        shares = [texts[first : first + share] for first in range(half, len(texts), share)]
        self._answers: list[Future[list[Vector]]] = [
            threads.submit(self._bulk.iter_embed, producer, texts[:half], 64),
            *(
                threads.submit(self._interactive.embed_many, producer, some, CALL_ROWS, pause_s)
                for some, pause_s in zip(shares, PAUSES_S, strict=True)
            ),
        ]

    def done(self) -> bool:
        return all(answer.done() for answer in self._answers)

    def vectors(self) -> list[Vector]:
        return [vector for answer in self._answers for vector in answer.result(300)]

    def figures(self) -> dict[str, object]:
        outage_s = max(self._interactive.longest_outage_s, self._bulk.longest_outage_s)
        return {
            "interactive calls refused": self._interactive.refusals,
            "bulk runs broken off": self._bulk.refusals,
            "longest outage for a caller": f"{outage_s:.1f} s",
            "longest interactive call": f"{self._interactive.longest_call_s:.1f} s",
        }


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What one crash cost: how long before it the rows were acknowledged that it lost, and how long they may be."""

    taken: int
    ages_s: list[float]
    may_be_s: float
    healed_s: float


def _crash_once(durability: Durability, program: Path, folder: Path, draws: random.Random) -> Loss:
    """Kill a server without workers, bring it back, and let a worker answer what is left and what is asked again."""
    with (
        durability.server(program, folder) as server,
        _site(server.url) as site,
        site.producer() as producer,
        ThreadPoolExecutor(len(PAUSES_S)) as threads,
    ):
        with Forgetful(site, name="forgotten", pause_s=0.001) as forgetful:
            live_for(draws.uniform(1.0, 2.0))
            size, sized_at = size_bytes(folder) if durability.power_cut else 0, time.monotonic()
            calls = [[f"waiting {caller} {n}" for n in range(WAITING_ROWS)] for caller in range(len(PAUSES_S))]
            answers = [threads.submit(producer.embed_many, texts) for texts in calls]
            wait_until(lambda: site.waiting() == len(PAUSES_S) * WAITING_ROWS, what="rows that are waited for")
            live_for(0.8)
            killed_at = time.monotonic()
            server.kill()
        if durability.power_cut:
            cut(folder, size)
        server.start()
        back_at = time.monotonic()
        await_loaded(site.client)
        kept = kept_rows(site, Lane.BULK)
        with Engine(site):
            for answer, texts in zip(answers, calls, strict=True):
                assert np.array_equal(answer.result(60), vectors_of(texts))
            healed_s = time.monotonic() - back_at
            _await_rest(site)
        assert all(producer.cached(sorted(kept))), "what it kept is answered"
    taken = forgetful.acknowledged
    assert len(kept - taken.keys()) <= 1, "at most the last row was kept and not yet acknowledged"
    ages_s = [killed_at - at_s for text, at_s in taken.items() if text not in kept]
    may_be_s = killed_at - sized_at if durability.power_cut else durability.may_lose_s
    return Loss(taken=len(taken), ages_s=ages_s, may_be_s=may_be_s, healed_s=healed_s)


def _crash_until_answered(
    crashes: Crashes,
    callers: "Callers",
    sizes: Sizes,
    draws: random.Random,
    progress: Callable[[], float],
) -> None:
    """Crash until all are answered: in the short form twice, at points of progress."""
    while not callers.done() and crashes.count < sizes(short=2, long=1_000_000):
        if sizes.is_long:
            crashes.await_loaded()
            live_for(draws.uniform(2.0, 5.0))
        else:
            wait_until(lambda least=(crashes.count + 1) / 3: progress() >= least, what="progress")  # type: ignore[misc]
        crashes.crash()
