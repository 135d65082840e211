"""One reply is lost after the server has executed the command: at each step of a row's way, and what that costs."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
import pytest

from producer import RedisUnavailable
from producer.results import Vector
from producer.wire.keys import Lane
from producer.wire.scripts import script
from tests.chaos.proxy import Proxy
from tests.chaos.weather import BOTH, Trap, Weather
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import FakeModel, vector_of
from tests.integration.harness.site import Site, passage
from tests.integration.harness.waiting import wait_until

LONG_LEASE_S = 60.0
"""So long that nobody takes anything over while a test runs: a worker must find by itself what it was given."""

DEADLINE_S = 30.0
TEXT = "a row whose reply is lost"

ENQUEUE = script("enqueue").sha.encode()
COMPLETE = script("complete").sha.encode()

each_client = pytest.mark.parametrize("client", ["sync", "async"])
Client = Literal["sync", "async"]


@pytest.fixture
def proxy(solo: Site) -> Iterator[Proxy]:
    with Proxy(urlsplit(solo.url).port or 0) as proxy:
        yield proxy


@pytest.fixture
def behind(solo: Site, proxy: Proxy) -> Site:
    """The namespace as it is seen through the proxy."""
    return replace(solo, url=proxy.url)


def embed(site: Site, client: Client, text: str = TEXT, timeout_s: float = 30.0) -> Vector:
    """Ask once, in a thread, with a deadline against a hang."""

    async def ask() -> Vector:
        async with site.async_producer() as producer:
            return await producer.embed(text, "passage", timeout_s=timeout_s)

    def ask_sync() -> Vector:
        with site.producer() as producer:
            return producer.embed(text, "passage", timeout_s=timeout_s)

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(ask_sync if client == "sync" else lambda: asyncio.run(ask())).result(DEADLINE_S)


def check_once(site: Site, model: FakeModel, trap: Trap) -> None:
    """The reply was lost, the row was computed once, and nothing is left of it."""
    assert trap.sprung.is_set()
    site.await_empty()
    assert model.computed == [TEXT]
    assert site.client.xlen(site.queue().dead) == 0


def set_command(site: Site) -> bytes:
    """The beginning of the command that writes the row's reply."""
    key = site.queue().reply(passage(TEXT).digest).encode()
    return rb"SET\r\n\$%d\r\n%b" % (len(key), key)


@each_client
@pytest.mark.parametrize("keep_bytes", [0, 3])
def test_of_the_enqueueing(solo: Site, behind: Site, proxy: Proxy, client: Client, keep_bytes: int) -> None:
    trap = proxy.set_trap(Trap(command=ENQUEUE, reply=rb"\*4", keep_bytes=keep_bytes))

    with Engine(solo) as engine:
        assert np.array_equal(embed(behind, client), vector_of(TEXT))
        check_once(solo, engine.model, trap)


@each_client
def test_of_the_enqueueing_without_a_word(solo: Site, behind: Site, proxy: Proxy, client: Client) -> None:
    trap = proxy.set_trap(Trap(command=ENQUEUE, reply=rb"\*4", then="dark"))

    with Engine(solo) as engine:
        with pytest.raises(RedisUnavailable):
            embed(behind, client, timeout_s=0.5)
        assert np.array_equal(embed(behind, client), vector_of(TEXT))
        check_once(solo, engine.model, trap)


@each_client
def test_of_the_look_up_in_the_middle_of_a_vector(solo: Site, behind: Site, proxy: Proxy, client: Client) -> None:
    with Engine(solo) as engine:
        embed(solo, "sync")
        trap = proxy.set_trap(Trap(command=b"MGET", reply=b"vector", keep_bytes=20))
        assert np.array_equal(embed(behind, client), vector_of(TEXT))
        check_once(solo, engine.model, trap)


@each_client
@pytest.mark.parametrize("then", ["cut", "dark"])
def test_of_the_hint(solo: Site, behind: Site, proxy: Proxy, client: Client, then: Literal["cut", "dark"]) -> None:
    trap = proxy.set_trap(Trap(command=b"SUBSCRIBE", reply=rb"\bmessage\r\n", then=then))

    with Engine(solo) as engine:
        assert np.array_equal(embed(behind, client), vector_of(TEXT))
        check_once(solo, engine.model, trap)


@each_client
@pytest.mark.parametrize("keep_bytes", [0, 60])
def test_of_the_reading(solo: Site, behind: Site, proxy: Proxy, client: Client, keep_bytes: int) -> None:
    """The entry is on the worker's own pending list, and only there."""
    trap = proxy.set_trap(Trap(command=b"XREADGROUP", reply=b"budget_ms", keep_bytes=keep_bytes))

    with Engine(behind, lease_s=LONG_LEASE_S) as engine:
        assert np.array_equal(embed(solo, client), vector_of(TEXT))
        check_once(solo, engine.model, trap)


def test_of_the_taking_over(solo: Site, behind: Site, proxy: Proxy) -> None:
    """The entry moves from a worker that died to the pending list of one that does not know."""
    trap = proxy.set_trap(Trap(command=b"XCLAIM", reply=b"budget_ms"))
    with solo.producer() as producer, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(producer.embed, TEXT, "passage")
        wait_until(lambda: solo.waiting() == 1, what="the job")
        _read_and_die(solo)
        with Engine(behind, lease_s=0.4) as engine:
            assert np.array_equal(asked.result(DEADLINE_S), vector_of(TEXT))
            check_once(solo, engine.model, trap)


@each_client
@pytest.mark.parametrize("keep_bytes", [0, 3])
def test_of_the_writing(solo: Site, behind: Site, proxy: Proxy, client: Client, keep_bytes: int) -> None:
    """The result is there and nobody is told; the worker finds both when it begins anew."""
    trap = proxy.set_trap(Trap(command=set_command(solo), keep_bytes=keep_bytes))

    with Engine(behind, lease_s=LONG_LEASE_S) as engine:
        assert np.array_equal(embed(solo, client), vector_of(TEXT))
        check_once(solo, engine.model, trap)


@each_client
def test_of_the_completion(solo: Site, behind: Site, proxy: Proxy, client: Client) -> None:
    trap = proxy.set_trap(Trap(command=COMPLETE))

    with Engine(behind, lease_s=LONG_LEASE_S) as engine:
        assert np.array_equal(embed(solo, client), vector_of(TEXT))
        check_once(solo, engine.model, trap)


def test_of_the_writing_and_the_worker_stays_away(solo: Site, behind: Site, proxy: Proxy) -> None:
    """Another worker takes the entry over, and finds the result instead of computing it again."""
    trap = proxy.set_trap(Trap(command=set_command(solo)))
    with solo.producer() as producer, ThreadPoolExecutor(1) as threads, Engine(behind, lease_s=1.0) as lost:
        asked = threads.submit(producer.embed, TEXT, "passage")
        assert trap.sprung.wait(DEADLINE_S)
        proxy.change(Weather(refusing=True))
        proxy.cut()
        with Engine(solo, name="engine/1", lease_s=1.0) as other:
            assert np.array_equal(asked.result(DEADLINE_S), vector_of(TEXT))
            check_once(solo, lost.model, trap)
            assert other.model.computed == []
        proxy.heal()


def test_of_everything_to_a_worker_that_comes_back(solo: Site, behind: Site, proxy: Proxy) -> None:
    """Cut off with a batch in hand and replaced; what it then does late with the entry changes nothing."""
    arrived: list[object] = []

    def cut_off(batch: object) -> None:
        if not arrived:
            proxy.change(Weather(refusing=True))
            proxy.cut()
        arrived.append(batch)

    lost, other = FakeModel(cut_off), FakeModel()
    with solo.producer() as producer, ThreadPoolExecutor(1) as threads, Engine(behind, lost, lease_s=1.0):
        asked = threads.submit(producer.embed, TEXT, "passage")
        wait_until(lambda: arrived, what="a batch in hand")
        with Engine(solo, other, name="engine/1", lease_s=1.0):
            assert np.array_equal(asked.result(DEADLINE_S), vector_of(TEXT))
        proxy.heal()
        assert np.array_equal(producer.embed("another"), vector_of("another"))
        solo.await_empty()
    assert lost.computed == [TEXT, "another"]
    assert other.computed == [TEXT], "the row of a worker that is cut off is computed twice, and no more"
    assert solo.client.xlen(solo.queue().dead) == 0


def test_a_dark_network_in_both_directions_ends_with_the_socket_timeout(solo: Site, behind: Site, proxy: Proxy) -> None:
    with Engine(solo), behind.producer() as producer:
        assert np.array_equal(producer.embed("before", "passage"), vector_of("before"))
        proxy.change(Weather(dark=BOTH))
        with ThreadPoolExecutor(1) as threads, pytest.raises(RedisUnavailable):
            threads.submit(producer.embed, "meanwhile", "passage", timeout_s=0.5).result(DEADLINE_S)
        proxy.heal(reset_dark=False)
        assert np.array_equal(producer.embed("after", "passage"), vector_of("after"))


def _read_and_die(site: Site) -> None:
    """Read the job as a worker does that is never heard of again."""
    lane = site.queue().lane(Lane.INTERACTIVE)
    site.client.xgroup_create(lane, "headrace", id="0", mkstream=True)
    site.client.xreadgroup("headrace", "engine/9", {lane: ">"})
