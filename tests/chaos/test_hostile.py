"""A hostile peer writes onto the lanes: no worker dies or grows, nothing is left over, and good jobs are answered."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from producer import Producer
from producer.wire.keys import Lane
from producer.wire.models import TASKS, TaskName
from tests.chaos.campaign import Report, Sizes, chance
from tests.chaos.fates import Entry, Fate, Lanes
from tests.chaos.fuzzer import Fuzzer
from tests.conftest import StartPool
from tests.fuzzing import ENTRIES, made_up
from tests.integration.harness.fake_model import score_of, vectors_of
from tests.integration.harness.processes import PoolProgram
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until
from workers.reader import READ_ROWS

POOL = "tests.chaos.hostile_pool"
MIB = 1 << 20
CHUNK = 50
YEAR_MS = 365 * 24 * 3600 * 1000
SOON_MS = 5000
FRANK_MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""glibc gives large blocks back at once (mallopt(3)); what it kept for later would look like growth, or hide it."""

PAST_IDS = ("0-1", "1-0", "1000-7", "999999999999-18446744073709551615")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How many entries for each task, how many of them are oversized, and how far a worker may grow meanwhile."""

    entries: int
    oversized: float
    largest_bytes: int
    warm_up: float
    growth_bytes: int


SHORT = Plan(entries=200, oversized=0.25, largest_bytes=MIB, warm_up=0.5, growth_bytes=6 * MIB)
LONG = Plan(entries=5000, oversized=0.03, largest_bytes=4 * MIB, warm_up=0.3, growth_bytes=16 * MIB)


class Attack:
    """Everything that one task's lanes get, in chunks; the same for the same seed."""

    def __init__(self, site: Site, task: TaskName, plan: Plan, seed: int) -> None:
        self.lanes = Lanes(site, task)
        self._site = site
        self._plan = plan
        self._chance = chance(seed, task)
        self._fuzzer = Fuzzer(task, chance(seed, task, "fuzzer"))
        self._made_up = made_up(ENTRIES, plan.entries // 4, seed)

    def chunks(self) -> Iterator[list[Entry]]:
        """First ids of long ago, which a stream takes only while it is new; at the end some of the near future."""
        now_ms = int(self._site.client.time()[0]) * 1000
        yield list(self._with_ids([*PAST_IDS, *(f"{now_ms - years * YEAR_MS}-{years}" for years in range(9, 0, -1))]))
        # As much at once as a worker ever holds: from here on its memory has no reason to grow.
        yield [(lane, self._fuzzer.oversized(self._plan.largest_bytes), "*") for lane in Lane for _ in range(READ_ROWS)]
        for _ in range(self._plan.entries // CHUNK):
            yield [self._entry() for _ in range(CHUNK)]
        now_ms = int(self._site.client.time()[0]) * 1000
        yield list(self._with_ids([f"{now_ms + SOON_MS + n}-{n}" for n in range(10)]))

    def _with_ids(self, ids: list[str]) -> Iterator[Entry]:
        for id_ in ids:
            for lane in Lane:
                yield lane, self._chance.choice((self._fuzzer.valid, self._fuzzer.broken))(), id_

    def _entry(self) -> Entry:
        lane, luck = self._chance.choice(list(Lane)), self._chance.random()
        if luck < self._plan.oversized:
            size_bytes = int(self._plan.largest_bytes * self._chance.uniform(0.1, 1))
            return lane, self._fuzzer.oversized(size_bytes), "*"
        if luck < 0.4:
            return lane, self._fuzzer.valid(), "*"
        if luck < 0.6 and self._made_up:
            return lane, self._made_up.pop(), "*"
        return lane, self._fuzzer.broken(), "*"


def test_anything_may_stand_on_a_lane(
    solo: Site, start_pool: StartPool, sizes: Sizes, seed: int, report: Report
) -> None:
    plan = sizes(short=SHORT, long=LONG)
    pools = {
        task: start_pool(solo, POOL, task=task, FAKE_TASK=task, HEADRACE_LOG_LEVEL="error", **FRANK_MALLOC)
        for task in TASKS
    }
    for task, pool in pools.items():
        workers = pool.await_healthy()
        with solo.producer() as producer:
            fates, sent_bytes, growth_bytes = _attack(Attack(solo, task, plan, seed), solo, task, pool, producer, plan)
        _check_counters(solo, task, fates)
        assert pool.workers() == workers, "no process was replaced"
        assert pool.running
        report(
            f"hostile peer, {task}",
            {
                "seed": seed,
                "entries": fates.total(),
                **{fate: fates[fate] for fate in get_args(Fate)},
                "sent": f"{sent_bytes / MIB:.0f} MiB after the warm-up",
                "growth of the worker": f"{growth_bytes / MIB:.1f} MiB",
            },
        )
        assert growth_bytes < plan.growth_bytes < sent_bytes / 2, "a worker that kept what it was sent would show"


def _attack(
    attack: Attack, site: Site, task: TaskName, pool: PoolProgram, producer: Producer, plan: Plan
) -> tuple[Counter[Fate], int, int]:
    """Send everything; return the fates, and since the warm-up: bytes sent, and growth of the worker in bytes."""
    fates: Counter[Fate] = Counter()
    (pid,) = pool.workers().values()
    sent_bytes, warm_bytes = 0, 0
    for number, entries in enumerate(attack.chunks()):
        sent = attack.lanes.put(entries)
        _check_good_calls(producer, task, f"chunk {number}")
        site.await_empty(task)
        fates.update(attack.lanes.fates(sent))
        if fates.total() <= plan.entries * plan.warm_up:
            warm_bytes = _resident_bytes(pid)
        else:
            sent_bytes += sum(entry.size_bytes for entry in sent)
    return fates, sent_bytes, _resident_bytes(pid) - warm_bytes


def _check_good_calls(producer: Producer, task: TaskName, name: str) -> None:
    """What a good producer asks meanwhile is answered, and right."""
    texts = [f"good text {number} of {name}" for number in range(5)]
    if task == "embed":
        assert np.array_equal(producer.embed_many(texts), vectors_of(texts))
        assert np.array_equal(np.stack(list(producer.iter_embed(texts[::-1]))), vectors_of(texts[::-1]))
    else:
        ranking = producer.rerank(name, texts)
        assert {r.document: r.score for r in ranking.results} == {text: score_of(name, text) for text in texts}


def _check_counters(site: Site, task: TaskName, fates: Counter[Fate]) -> None:
    """The workers have counted the same: they send their counts with a heartbeat."""

    def dead() -> int:
        counters = site.counters(task)
        return counters.get("dead_interactive", 0) + counters.get("dead_bulk", 0)

    wait_until(lambda: dead() >= fates["dead"], what="the dead to be counted")
    wait_until(lambda: site.counters(task).get("expired", 0) >= fates["expired"], what="the expired to be counted")
    assert site.counters(task)["expired"] == fates["expired"]


def _resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024
