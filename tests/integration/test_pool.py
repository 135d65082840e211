"""How a pool looks after its processes: hung, dying, growing and worn-out ones, and a server that would lose work."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import redis

from console.redis_server import RedisServer
from producer import RowFailed
from tests.conftest import StartPool
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import Record, vector_of, vectors_of
from tests.integration.harness.poison import GROW, HANG, KILL, POISON_POOL, RAISE
from tests.integration.harness.processes import is_alive
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

NEVER = "10000"


@pytest.fixture
def record(solo: Site) -> Record:
    """The work of the pools' models."""
    return Record(solo.client, solo.namespace)


def test_a_hung_process_is_killed_and_replaced_and_its_row_dies_after_three_times(
    solo: Site, start_pool: StartPool
) -> None:
    pool = start_pool(solo, POISON_POOL, HEADRACE_BATCH_LIMIT_S="0.5", HEADRACE_LEASE_S="1")
    (first,) = pool.await_healthy().values()
    with solo.producer() as producer, ThreadPoolExecutor(1) as threads:
        hung = threads.submit(producer.embed, f"{HANG} for ever")
        with pytest.raises(RowFailed) as failure:
            hung.result(60)
        assert failure.value.code == "worker_died"
        assert np.array_equal(producer.embed("after"), vector_of("after"))
        (last,) = pool.await_healthy().values()
    assert last != first
    assert pool.stderr.count("hangs: a batch runs for more than 0.5 s") == 3
    assert "for ever" not in pool.stderr


def test_a_hung_orphan_does_not_renew_its_leases_and_leaves(solo: Site, start_pool: StartPool) -> None:
    """Its rows go to another pool when the time for a batch is over, though nobody kills it."""
    text = f"{HANG} until the other comes"
    slow = start_pool(solo, POISON_POOL, HEADRACE_BATCH_LIMIT_S="2", HEADRACE_LEASE_S="0.5")
    (worker,) = slow.await_healthy().values()
    with solo.producer() as producer, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(producer.embed, text)
        wait_until(lambda: solo.pending() == 1, what="the row in hand")
        slow.kill()  # the parent alone: nobody is left to kill the worker
        with Engine(solo, name="other/0", lease_s=0.5):
            assert np.array_equal(asked.result(60), vector_of(text))
        wait_until(lambda: not is_alive(worker), what="the end of an orphan that would hang for ever")


def test_a_pool_lives_on_when_its_processes_are_killed_at_work(solo: Site, start_pool: StartPool) -> None:
    """tests/unit/test_pool_slots.py shows that it does so without end."""
    pool = start_pool(solo, POISON_POOL, HEADRACE_BATCH_TOKENS="1")
    pool.await_healthy()
    with solo.producer() as producer:
        with pytest.raises(RowFailed, match="3 times a worker died"):
            producer.embed(f"{KILL} its worker")
        assert np.array_equal(producer.embed("after"), vector_of("after"))
    assert pool.running
    assert pool.stderr.count("ended with code -9") == 3


def test_a_pool_gives_up_loudly_when_its_processes_cannot_start(solo: Site, start_pool: StartPool) -> None:
    pool = start_pool(solo, "tests.integration.harness.stillborn")

    assert pool.wait(120) == 3
    assert pool.stderr.count("the next starts in") == 4
    assert pool.stderr.count("ended with code 3: the pool gives up") == 1


def test_a_process_is_replaced_in_order_after_so_many_rows(solo: Site, start_pool: StartPool, record: Record) -> None:
    texts = [f"text {number}" for number in range(60)]
    pool = start_pool(solo, HEADRACE_RECYCLE_ROWS="20", HEADRACE_BATCH_TOKENS="4", HEADRACE_LEASE_S=NEVER)
    pool.await_healthy()
    with solo.producer() as producer:
        assert np.array_equal(producer.embed_many(texts), vectors_of(texts))

    work = record.read()
    assert sorted(text for _, text in work) == sorted(texts), "nothing is computed twice"
    rows = [sum(pid == one for pid, _ in work) for one in dict.fromkeys(pid for pid, _ in work)]
    assert len(rows) >= 3
    assert all(18 <= count <= 24 for count in rows[:-1]), rows
    assert "gives up" not in pool.stderr


def test_a_process_that_has_grown_is_replaced_in_order(solo: Site, start_pool: StartPool, record: Record) -> None:
    pool = start_pool(solo, POISON_POOL, HEADRACE_RECYCLE_MB="300", HEADRACE_BATCH_TOKENS="1")
    first = pool.await_healthy()
    with solo.producer() as producer:
        for number in range(8):
            assert np.array_equal(producer.embed(f"{GROW} {number}"), vector_of(f"{GROW} {number}"))
        wait_until(lambda: "MiB, more than 300: it is replaced" in pool.stderr, what="the end of a large process")
        wait_until(lambda: pool.workers() not in ({}, first), what="another process in its place")
        assert np.array_equal(producer.embed("after"), vector_of("after"))
    assert len(record.read()) == 9, "nothing is computed twice"


def test_a_failing_row_kills_nobody(solo: Site, start_pool: StartPool) -> None:
    pool = start_pool(solo, POISON_POOL)
    before = pool.await_healthy()
    with solo.producer() as producer, pytest.raises(RowFailed, match="the model raised ValueError"):
        producer.embed(f"{RAISE} secret words")
    assert pool.workers() == before
    assert "secret" not in pool.stderr


def test_a_server_that_may_evict_queues_is_refused(
    own_server: RedisServer, own_site: Site, start_pool: StartPool
) -> None:
    own_site.client.config_set("maxmemory-policy", "allkeys-lru")
    pool = start_pool(own_site)

    assert pool.wait() == 78
    (line,) = [line for line in pool.stderr.splitlines() if "evict" in line]
    assert "maxmemory-policy allkeys-lru" in line
    assert "Traceback" not in pool.stderr


def test_what_an_operator_should_know_of_the_server_is_said_at_the_start(
    own_server: RedisServer, own_site: Site, start_pool: StartPool
) -> None:
    own_site.client.config_set("maxmemory-policy", "noeviction")
    own_site.client.config_set("maxmemory", "100mb")
    pool = start_pool(own_site)
    pool.await_healthy()

    assert pool.stderr.count("evicts nothing") == 1
    assert pool.stderr.count("no append-only file") == 1


def test_consumers_of_workers_that_are_gone_for_good_are_removed(solo: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.pulse._FORGET_MS", -1)
    for number in range(3):
        with Engine(solo, name=f"container-{number}/0"), solo.producer() as producer:
            producer.embed(f"text {number}")

    groups: list[dict[str, bytes]] = []
    for stream in solo.client.scan_iter(f"{solo.namespace}:*:jobs"):
        groups += redis.Redis.xinfo_consumers(solo.client, stream, "headrace")
    assert {group["name"] for group in groups} == {b"container-2/0"}
