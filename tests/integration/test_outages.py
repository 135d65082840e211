"""A Redis that refuses, cannot be reached, goes away and comes back: what callers see, and that they recover."""

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from console.redis_server import RedisServer
from producer import RedisUnavailable, ResultTimeout
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import vector_of
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until


@pytest.fixture
def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        yield port


def test_a_server_that_never_answers_does_not_hold_a_call(own_site: Site, silent_port: int) -> None:
    """The limits are deadlines against a hang: such calls once took more than 30 s."""
    url = f"redis://127.0.0.1:{silent_port}/0"
    with ThreadPoolExecutor(1) as threads, own_site.producer(url=url) as producer:
        with pytest.raises(RedisUnavailable):
            threads.submit(producer.embed_many, [f"text {n}" for n in range(2500)], timeout_s=0.3).result(15)
        ranking = threads.submit(producer.rerank, "q", ["a", "b"], fallback_scores=[0.1, 0.9], timeout_s=0.3).result(15)

    assert ranking.fallback_used
    assert [result.document for result in ranking.results] == ["b", "a"]

    async def ask() -> None:
        async with own_site.async_producer(url=url) as asking:
            with pytest.raises(RedisUnavailable):
                await asyncio.wait_for(asking.embed("text", timeout_s=0.3), 15)

    asyncio.run(ask())


def test_a_wrong_password_is_refused(own_server: RedisServer, own_site: Site) -> None:
    own_site.client.config_set("requirepass", "secret")
    for user in ("", ":wrong@"):
        url = own_site.url.replace("redis://", f"redis://{user}")
        with own_site.producer(url=url) as producer, pytest.raises(RedisUnavailable) as refusal:
            producer.embed("text")
        assert refusal.value.code == "redis_refused"
        assert "wrong" not in str(refusal.value).split(), "the password given is not repeated"

    with own_site.producer(url=own_site.url.replace("redis://", "redis://:secret@")) as producer:
        assert producer.cached(["text"]) == [False]


def test_nobody_listens(own_site: Site, closed_port: int) -> None:
    async def ask() -> None:
        async with own_site.async_producer(url=url) as producer:
            await producer.embed("text")

    url = f"redis://127.0.0.1:{closed_port}/0"
    with own_site.producer(url=url) as producer:
        with pytest.raises(RedisUnavailable) as failure:
            producer.embed("text")
        with pytest.raises(RedisUnavailable):
            producer.queue_state("embed")
    assert failure.value.code == "redis_unavailable"
    with pytest.raises(RedisUnavailable) as failure:
        asyncio.run(ask())
    assert failure.value.code == "redis_unavailable"


def test_a_producer_outlives_its_server(
    own_server: RedisServer, own_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with own_site.producer() as producer:
        with Engine(own_site):
            producer.embed("before")
        own_server.kill()
        with pytest.raises(RedisUnavailable) as failure:
            producer.embed("meanwhile")
        assert failure.value.code == "redis_unavailable"
        _await_deafness(caplog)
        own_server.start()
        with Engine(own_site):
            assert np.array_equal(producer.embed("after"), vector_of("after"))
            assert np.array_equal(producer.embed("before"), vector_of("before"))
        _await_listener(own_site)


def test_an_async_producer_outlives_its_server(
    own_server: RedisServer, own_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with own_site.async_producer() as producer:
            with Engine(own_site):
                await producer.embed("before")
            own_server.kill()
            with pytest.raises(RedisUnavailable):
                await producer.embed("meanwhile")
            await asyncio.to_thread(_await_deafness, caplog)
            own_server.start()
            with Engine(own_site):
                assert np.array_equal(await producer.embed("after"), vector_of("after"))
            await asyncio.to_thread(_await_listener, own_site)

    asyncio.run(scenario())


def test_a_call_in_flight_is_answered_when_the_server_is_back(own_server: RedisServer, own_site: Site) -> None:
    with own_site.producer() as producer, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(producer.embed, "patient")
        wait_until(lambda: own_site.waiting() == 1, what="the job")
        own_server.kill()  # it keeps nothing: the job is gone
        own_server.start()
        with Engine(own_site):
            assert np.array_equal(asked.result(60), vector_of("patient"))


def test_a_call_whose_server_stays_away_ends_at_its_timeout(own_server: RedisServer, own_site: Site) -> None:
    with own_site.producer() as producer, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(producer.embed, "in vain", timeout_s=2)
        wait_until(lambda: own_site.waiting() == 1, what="the job")
        own_server.kill()
        with pytest.raises(ResultTimeout, match="the queue cannot be inspected"):
            asked.result(60)


def _await_deafness(caplog: pytest.LogCaptureFixture) -> None:
    """Wait until the listener has noticed that its server is away."""
    wait_until(lambda: "hints are interrupted" in caplog.text, what="a warning of the listener")


def _await_listener(site: Site) -> None:
    """Wait until the producer hears hints again; without, it would live on re-checks."""
    wait_until(lambda: site.client.pubsub_channels(f"{site.namespace}:hint:*"), what="a subscription")
