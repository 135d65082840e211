"""The network is slow and broken while rows flow: no call hangs, none is answered wrongly, and nothing is left over."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import numpy as np
import pytest

from producer import AsyncProducer
from producer.errors import HeadraceError
from producer.wire.models import TASKS
from tests.chaos.callers import (
    PATIENT_S,
    Call,
    Tally,
    ask_sync,
    attempt,
    calls,
    check_ranking,
    check_vectors,
    keep_calling,
)
from tests.chaos.campaign import Report, Sizes, chance, percent
from tests.chaos.proxy import Proxy
from tests.chaos.vandal import Vandal
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import FakeModel, vector_of
from tests.integration.harness.site import Site

MARGIN_S = 3.0
"""A call may end this much after its timeout: a deadline against hangs, not a promise."""

LEASE_S = 2.0
CALLERS = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much happens."""

    strikes: int
    rows: int
    longest_s: float
    leave_dark: bool


SHORT = Plan(strikes=12, rows=300, longest_s=1.0, leave_dark=False)
LONG = Plan(strikes=64, rows=6000, longest_s=12.0, leave_dark=True)
"""Faults may outlast a worker's socket timeout of 10 s, and so do connections that stay dark."""


class Land:
    """Producers and workers, each behind a network of its own, around one Redis."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.proxies: dict[str, Proxy] = {}
        self.models: list[FakeModel] = []
        self._stack = ExitStack()

    def __enter__(self) -> "Land":
        port = urlsplit(self.site.url).port or 0
        for name in ("producers", "worker 0", "worker 1"):
            self.proxies[name] = self._stack.enter_context(Proxy(port))
        for number in range(2):
            behind = replace(self.site, url=self.proxies[f"worker {number}"].url)
            for task in TASKS:
                model = FakeModel()
                self.models.append(model)
                name = f"host-{number}/0"
                self._stack.enter_context(Engine(behind, model, task=task, name=name, lease_s=LEASE_S))
        return self

    def __exit__(self, *exception: object) -> None:
        for proxy in self.proxies.values():
            proxy.heal()
        self._stack.close()

    @property
    def asking_site(self) -> Site:
        return replace(self.site, url=self.proxies["producers"].url)

    def computed(self) -> Counter[object]:
        """How often each row was computed."""
        return Counter(row for model in self.models for row in model.computed)


@pytest.fixture
def land(solo: Site) -> Iterator[Land]:
    with Land(solo) as land:
        yield land


def test_rows_flow_through_bad_networks(land: Land, sizes: Sizes, seed: int, report: Report) -> None:
    plan = sizes(short=SHORT, long=LONG)
    vandal = Vandal(land.proxies, chance(seed, "vandal"), longest_s=plan.longest_s, leave_dark=plan.leave_dark)
    stop = threading.Event()
    with land.asking_site.producer() as producer, ThreadPoolExecutor(CALLERS + 1) as threads:
        share = plan.rows // (CALLERS + 1)
        running: list[Future[Tally]] = [
            threads.submit(
                keep_calling,
                lambda call: ask_sync(producer, call),
                calls(chance(seed, caller), f"caller {caller}"),
                rows=share,
                stop=stop,
            )
            for caller in range(CALLERS)
        ]
        running.append(threads.submit(lambda: asyncio.run(_call_async(land.asking_site, seed, share, stop))))
        try:
            vandal.run(plan.strikes, stop=stop)
        finally:
            stop.set()
        tallies = [caller.result(PATIENT_S + MARGIN_S) for caller in running]
        again = Tally()
        for call in (call for tally in tallies for call in tally.failed):
            attempt(lambda call: ask_sync(producer, call), replace(call, timeout_s=PATIENT_S), again)

    errors = sum((tally.errors for tally in tallies), Counter[str]())
    computed = land.computed()
    twice = sum(times - 1 for times in computed.values())
    overrun_s = max(tally.overrun_s for tally in tallies)
    report(
        "slow and broken networks",
        {
            "seed": seed,
            "faults": f"{vandal.faults.total()} ({_listing(vandal.faults)})",
            "calls answered": sum(tally.answered for tally in tallies),
            "rows answered": sum(tally.rows for tally in tallies),
            "calls failed": f"{errors.total()} ({_listing(errors)})",
            "of these answered after healing": again.answered,
            "rows computed twice": f"{twice} of {len(computed)} ({percent(twice, len(computed))})",
            "latest end after a timeout": f"{max(0.0, overrun_s):.1f} s",
        },
    )
    assert not again.failed, "every row is answered once the network is well"
    assert not [call for tally in tallies for call in tally.out_of_time], "a call with time enough is answered"
    assert overrun_s < MARGIN_S
    for task in TASKS:
        land.site.await_empty(task)
        assert land.site.client.xlen(land.site.queue(task).dead) == 0, "no row dies of the network"


async def _call_async(site: Site, seed: int, rows: int, stop: threading.Event) -> Tally:
    """Several tasks of one async producer, until told to stop."""
    tally = Tally()
    source = calls(chance(seed, "async"), "async")
    clock = asyncio.get_running_loop().time

    async def keep_calling_in_a_task(producer: AsyncProducer) -> None:
        asked = 0
        while not stop.is_set() or asked < rows // CALLERS:
            call = next(source)
            asked += len(call.texts)
            started, error = clock(), None
            try:
                await _ask_async(producer, call)
            except HeadraceError as raised:
                error = raised
            tally.note(call, clock() - started, error)
            await asyncio.sleep(0.02)

    async with site.async_producer() as producer:
        await asyncio.gather(*(keep_calling_in_a_task(producer) for _ in range(CALLERS)))
    return tally


async def _ask_async(producer: AsyncProducer, call: Call) -> None:
    texts = call.texts
    match call.kind:
        case "embed":
            check_vectors(await producer.embed_many(texts, timeout_s=call.timeout_s), texts)
        case "result":
            check_vectors((await producer.embed_result(texts, timeout_s=call.timeout_s)).embeddings, texts)
        case "rerank":
            check_ranking(await producer.rerank(texts[0], texts, timeout_s=call.timeout_s), texts[0])
        case "bulk":
            expected = iter(texts)
            async for vector in producer.iter_embed(texts, timeout_s=call.timeout_s):
                assert np.array_equal(vector, vector_of(next(expected)))


def _listing(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"
