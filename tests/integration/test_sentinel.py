"""A master that Sentinels name: found, followed when it dies or is demoted, and not waited for when they are silent."""

import asyncio
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from console.redis_server import RedisServer
from producer import Producer, RedisUnavailable
from producer.connection import connect, connect_async
from producer.settings import ProducerSettings
from producer.wire.models import OFFLINE
from tests.conftest import StartPool
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import score_of, vector_of
from tests.integration.harness.ports import free_port, silent_port
from tests.integration.harness.scripted import ScriptedSentinel, names
from tests.integration.harness.sentinel import SERVICE, SentinelGroup
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until


@pytest.fixture(scope="module")
def group(server_program: Path) -> Iterator[SentinelGroup]:
    """Sentinels and servers for tests that leave them as they are."""
    with SentinelGroup(server_program) as group:
        yield group


@pytest.fixture
def own_group(server_program: Path) -> Iterator[SentinelGroup]:
    """Sentinels and servers for one test alone, which may kill the master."""
    with SentinelGroup(server_program) as group:
        yield group


@pytest.fixture
def guarded(server_program: Path) -> Iterator[SentinelGroup]:
    """A group whose servers and whose Sentinel ask for passwords."""
    with SentinelGroup(server_program, sentinels=1, password="redis-pa55", sentinel_password="asker-pa55") as group:
        yield group


@pytest.fixture
def second_server(server_program: Path) -> Iterator[RedisServer]:
    with RedisServer(server_program) as server:
        yield server


def test_both_clients_and_a_worker_find_the_master(group: SentinelGroup) -> None:
    site = _site(group.url)
    with Engine(site), site.producer() as producer:
        assert np.array_equal(producer.embed("sync"), vector_of("sync"))
        assert np.array_equal(asyncio.run(_embed(site, "async")), vector_of("async"))
        assert [vector.tolist() for vector in producer.iter_embed(["a", "b"])] == [
            vector_of("a").tolist(),
            vector_of("b").tolist(),
        ]
        assert producer.queue_state("embed").workers[0].alive
        with group.connect(group.master) as client:
            assert client.pubsub_channels(f"{site.namespace}:hint:*"), "hints are heard from the master"
    with Engine(site, task="rerank"), site.producer() as producer:
        assert producer.rerank("q", ["d"]).results[0].score == score_of("q", "d")


@pytest.mark.parametrize("kind", ["dead", "silent", "both"])
def test_a_sentinel_that_does_not_answer_is_passed_over(group: SentinelGroup, kind: str) -> None:
    with silent_port() as silent:
        first = {"dead": [free_port()], "silent": [silent], "both": [silent, free_port()]}[kind]
        hosts = ",".join(f"127.0.0.1:{port}" for port in first)
        site = _site(group.url.replace(group.hosts, f"{hosts},{group.hosts}"))
        with Engine(site):
            assert np.array_equal(asyncio.run(_embed(site, "async")), vector_of("async"))
            with site.producer(timeout_s=5.0) as producer:
                assert np.array_equal(producer.embed("sync"), vector_of("sync"))


def test_silent_sentinels_do_not_hold_a_call() -> None:
    """The limits are deadlines against a hang: redis-py's own client would ask each of them ten times."""
    with silent_port() as one, silent_port() as two, silent_port() as three, ThreadPoolExecutor(1) as threads:
        site = _site(f"redis+sentinel://127.0.0.1:{one},127.0.0.1:{two},127.0.0.1:{three}/{SERVICE}")
        with site.producer() as producer, pytest.raises(RedisUnavailable, match="no Sentinel names") as failure:
            threads.submit(producer.embed, "text", timeout_s=0.3).result(15)
        assert failure.value.code == "redis_unavailable"
        with pytest.raises(RedisUnavailable):
            asyncio.run(asyncio.wait_for(_embed(site, "text", timeout_s=0.3), 15))


def test_a_service_that_nobody_knows(group: SentinelGroup) -> None:
    site = _site(group.url.replace(f"/{SERVICE}/", "/other/"))
    with site.producer() as producer, pytest.raises(RedisUnavailable, match=r"'other'.*no such service") as failure:
        producer.embed("text")
    assert failure.value.code == "redis_unavailable"
    with pytest.raises(RedisUnavailable, match=r"'other'.*no such service"):
        asyncio.run(_embed(site, "text"))


def test_passwords_of_the_servers_and_of_the_sentinels(guarded: SentinelGroup) -> None:
    with Engine(_site(guarded.url)):
        _check_refusal(guarded.url.replace("redis-pa55", "wrong"), "invalid username-password pair")
        _check_refusal(guarded.url.replace(guarded.login, ""), "already authenticated")
        _check_refusal(guarded.url.replace("asker-pa55", "wrong"), "no Sentinel names a master.*invalid username")
        _check_refusal(guarded.url.partition("?")[0], "no Sentinel names a master.*Authentication required")

    site = _site(guarded.url.replace(guarded.login, ""))
    settings: dict[str, Any] = {"redis_password": "redis-pa55"}
    with Engine(site, **settings), site.producer(**settings) as producer:
        assert np.array_equal(producer.embed("sync"), vector_of("sync"))
        assert np.array_equal(asyncio.run(_embed(site, "async", **settings)), vector_of("async"))


def test_a_pool_that_the_sentinels_refuse_ends_with_one_line(guarded: SentinelGroup, start_pool: StartPool) -> None:
    site = replace(_site(guarded.url.replace("asker-pa55", "wrong")), model=OFFLINE)
    pool = start_pool(site, "workers.embed_worker")

    assert pool.wait() != 0
    (line,) = pool.stderr.splitlines()
    assert "no Sentinel names a master" in line
    assert "pa55" not in line
    assert "wrong" not in line.split()


def test_all_resume_when_the_master_is_killed(own_group: SentinelGroup) -> None:
    site = _site(own_group.url)

    async def embed_again(producer: Any, text: str) -> Any:
        while True:
            with suppress(RedisUnavailable):
                return await producer.embed(text)
            await asyncio.sleep(0.05)

    async def scenario() -> None:
        async with site.async_producer() as asking:
            assert np.array_equal(await asking.embed("async before"), vector_of("async before"))
            killed = own_group.kill_master()
            await asyncio.to_thread(own_group.await_failover, killed)
            answered = await asyncio.wait_for(embed_again(asking, "async after"), 60)
            assert np.array_equal(answered, vector_of("async after"))

    with Engine(site), site.producer() as producer:
        assert np.array_equal(producer.embed("before"), vector_of("before"))
        asyncio.run(scenario())
        assert np.array_equal(_embed_again(producer, "after"), vector_of("after"))
        with own_group.connect(own_group.master) as client:
            wait_until(lambda: client.pubsub_channels(f"{site.namespace}:hint:*"), what="a subscription")


def test_all_resume_when_the_master_is_demoted_and_comes_back(own_group: SentinelGroup) -> None:
    site = _site(own_group.url)
    with Engine(site), site.producer() as producer:
        producer.embed("before")
        first = own_group.kill_master()
        second = own_group.await_failover(first)
        own_group.restore(first)
        assert np.array_equal(_embed_again(producer, "meanwhile"), vector_of("meanwhile"))
        with redis.Redis(port=own_group.sentinels[0].port) as sentinel:
            sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE)
        assert own_group.await_failover(second) is first
        assert np.array_equal(_embed_again(producer, "after"), vector_of("after"))


def test_a_write_to_a_demoted_master_goes_to_the_new_one(own_server: RedisServer, second_server: RedisServer) -> None:
    """A Sentinel may lag behind: its first answer is the old master, which takes no writes."""
    answers = [names(own_server.port), names(second_server.port)]

    async def write(sentinel: ScriptedSentinel) -> None:
        async with connect_async(_settings(sentinel)) as client:
            assert await client.set("async", "written")

    with redis.Redis(port=own_server.port) as first, redis.Redis(port=second_server.port) as second:
        first.replicaof("127.0.0.1", str(second_server.port))
        with ScriptedSentinel(answers) as lagging, connect(_settings(lagging)) as client:
            assert client.set("sync", "written")
        with ScriptedSentinel(answers) as lagging, connect(_settings(lagging)) as client:
            pipeline = client.pipeline(transaction=False).set("pipeline", "written").get("sync")
            assert pipeline.execute() == [True, b"written"]
        with ScriptedSentinel(answers) as lagging:
            asyncio.run(write(lagging))
            assert len(lagging.heard) == 2
        assert second.mget(["sync", "pipeline", "async"]) == [b"written"] * 3
        first.replicaof("NO", "ONE")  # the other server would wait for it before it ends


def _settings(sentinel: ScriptedSentinel) -> ProducerSettings:
    return ProducerSettings(redis_url=f"redis+sentinel://127.0.0.1:{sentinel.port}/{SERVICE}")


def _site(url: str) -> Site:
    """A fresh namespace there; the test's own connection follows the master, too."""
    return Site(
        url=url,
        namespace=f"test-{secrets.token_hex(4)}",
        client=connect(ProducerSettings(redis_url=url)),
    )


async def _embed(site: Site, text: str, *, timeout_s: float | None = None, **settings: Any) -> Any:
    async with site.async_producer(**settings) as producer:
        return await producer.embed(text, timeout_s=timeout_s)


def _embed_again(producer: Producer, text: str) -> Any:
    """Ask until Redis serves again, as an application would."""

    def embed() -> Any:
        with suppress(RedisUnavailable):
            return [producer.embed(text)]
        return None

    return wait_until(embed, 60, what="a producer that resumes", poll_s=0.05)[0]


def _check_refusal(url: str, reason: str) -> None:
    """Check that both clients say so at once, and do not repeat a password."""
    site = _site(url)
    with site.producer() as producer, pytest.raises(RedisUnavailable, match=reason) as sync_refusal:
        producer.embed("text")
    with pytest.raises(RedisUnavailable, match=reason) as async_refusal:
        asyncio.run(_embed(site, "text"))
    for refusal in (sync_refusal, async_refusal):
        assert refusal.value.code == "redis_refused"
        assert "pa55" not in str(refusal.value)
        assert "wrong" not in str(refusal.value).split()
