"""The master is killed under load while Sentinels watch: everything goes on with the replica, and nothing is lost."""

import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from producer import Producer
from producer.connection import connect
from producer.settings import ProducerSettings
from producer.wire.models import TASKS
from tests.chaos.callers import PATIENT_S, Call, Tally, ask_sync, attempt, calls, keep_calling
from tests.chaos.campaign import Report, Sizes, chance
from tests.integration.harness.engine import Engine
from tests.integration.harness.sentinel import SentinelGroup
from tests.integration.harness.site import FAKE, Site
from tests.integration.harness.waiting import wait_until

CALLERS = 4
FLOOD_ROWS = 1000
BETWEEN_KILLS = 40
"""Calls that are answered before the next kill."""

PROMISED_S = 30.0
LONGEST_S = 300.0


@pytest.fixture
def site(server_program: Path) -> Iterator[tuple[SentinelGroup, Site]]:
    """A group of servers and Sentinels, and a namespace on its master."""
    with SentinelGroup(server_program) as group, connect(ProducerSettings(redis_url=group.url)) as client:
        yield group, Site(url=group.url, namespace=f"test-{secrets.token_hex(4)}", client=client, model=FAKE)


class Watch:
    """Counts the answers of all callers, and the longest time without any."""

    def __init__(self) -> None:
        self.answers = 0
        self.longest_s = 0.0
        self._last_s = time.monotonic()
        self._lock = threading.Lock()

    def ask(self, producer: Producer, call: Call) -> None:
        ask_sync(producer, call)
        with self._lock:
            now_s = time.monotonic()
            self.longest_s = max(self.longest_s, now_s - self._last_s)
            self._last_s = now_s
            self.answers += 1

    def await_more(self) -> None:
        """Wait for so many answers from now on."""
        enough = self.answers + BETWEEN_KILLS
        wait_until(lambda: self.answers >= enough, LONGEST_S, what="answers")


def kill_masters(group: SentinelGroup, watch: Watch, kills: int) -> None:
    """Kill one master after the other, and let rows flow before and after each failover."""
    for _ in range(kills):
        watch.await_more()
        demoted = group.kill_master()
        group.await_failover(demoted)
        watch.await_more()
        group.restore(demoted)


def ask_again(producer: Producer, tallies: list[Tally]) -> Tally:
    """Repeat the calls that were told that they failed."""
    again = Tally()
    for call in (call for tally in tallies for call in tally.failed):
        attempt(lambda call: ask_sync(producer, call), replace(call, timeout_s=PATIENT_S), again)
    return again


def test_rows_flow_on_when_the_master_dies(
    site: tuple[SentinelGroup, Site], sizes: Sizes, seed: int, report: Report
) -> None:
    group, namespace = site
    kills = sizes(short=1, long=6)
    watch, stop = Watch(), threading.Event()
    with ExitStack() as stack:
        for number in range(2):
            for task in TASKS:
                stack.enter_context(Engine(namespace, task=task, name=f"host-{number}/0"))
        producer = stack.enter_context(namespace.producer())
        threads = stack.enter_context(ThreadPoolExecutor(CALLERS + 1))
        running = [
            threads.submit(
                keep_calling,
                lambda call: watch.ask(producer, call),
                calls(chance(seed, caller), f"caller {caller}"),
                rows=50,
                stop=stop,
            )
            for caller in range(CALLERS)
        ]
        flood = Call(kind="bulk", texts=tuple(f"flood {n}" for n in range(FLOOD_ROWS * kills)), timeout_s=PATIENT_S)
        flooding = threads.submit(ask_sync, producer, flood)
        try:
            kill_masters(group, watch, kills)
        finally:
            stop.set()
        tallies = [caller.result(LONGEST_S) for caller in running]
        flooding.result(LONGEST_S)
        again = ask_again(producer, tallies)
        for task in TASKS:
            namespace.await_empty(task)
            assert producer.queue_state(task).dead == 0, "no row dies of a failover"

    errors = sum((tally.errors for tally in tallies), Counter[str]())
    report(
        "failover",
        {
            "seed": seed,
            "masters killed": kills,
            "calls answered": sum(tally.answered for tally in tallies),
            "rows of one bulk run through it all": len(flood.texts),
            "calls told that they failed": errors.total(),
            "of these answered afterwards": again.answered,
            "longest time without any answer": f"{watch.longest_s:.1f} s",
        },
    )
    assert not again.failed
    assert not [call for tally in tallies for call in tally.out_of_time], "a call with time enough is answered"
    assert watch.longest_s < PROMISED_S
