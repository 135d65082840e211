"""A Redis that is full or read-only: callers are told, workers wait, and both go on by themselves when it is over."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from producer import RedisUnavailable
from producer.wire.keys import Lane
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import FakeModel, Gate, vector_of, vectors_of
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

TEXTS = [f"text {number}" for number in range(20)]


def fill(site: Site) -> None:
    """Let there be no memory for anything more."""
    site.client.config_set("maxmemory-policy", "noeviction")
    site.client.config_set("maxmemory", "1mb")


def make_room(site: Site) -> None:
    site.client.config_set("maxmemory", "0")


def demote(site: Site) -> None:
    """Make the server the replica of a master that is not there: it reads, and refuses to write."""
    site.client.replicaof("127.0.0.1", "1")


def promote(site: Site) -> None:
    site.client.replicaof("NO", "ONE")


TROUBLES = {"full": (fill, make_room, "Redis is full"), "read-only": (demote, promote, "(?i)read.?only")}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.usefixtures("own_server")
def test_callers_are_told_at_once_and_served_when_it_is_over(own_site: Site, trouble: str) -> None:
    begin, end, reason = TROUBLES[trouble]
    with Engine(own_site), own_site.producer() as producer:
        producer.embed("cached before", "passage")
        begin(own_site)
        with pytest.raises(RedisUnavailable, match=reason) as refusal:
            producer.embed("in vain", "passage")
        assert refusal.value.code == "redis_refused"
        assert np.array_equal(producer.embed("cached before", "passage"), vector_of("cached before"))
        assert own_site.waiting() == 0, "nothing half-done"
        assert own_site.wait_keys() == []
        end(own_site)
        assert np.array_equal(producer.embed("in vain", "passage"), vector_of("in vain"))

    async def ask() -> None:
        async with own_site.async_producer() as asking:
            begin(own_site)
            with pytest.raises(RedisUnavailable, match=reason):
                await asking.embed("in vain, too")
            end(own_site)
            with Engine(own_site):
                assert np.array_equal(await asking.embed("in vain, too"), vector_of("in vain, too"))

    asyncio.run(ask())


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.usefixtures("own_server")
def test_what_a_worker_cannot_write_it_computes_again_and_nothing_is_dead(
    own_site: Site, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    begin, end, _ = TROUBLES[trouble]
    gate = Gate()
    with own_site.producer() as producer, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(producer.embed_many, TEXTS)
        wait_until(lambda: own_site.waiting() == len(TEXTS), what="the jobs")
        with Engine(own_site, FakeModel(gate)):
            wait_until(lambda: gate.arrived, what="a batch in hand")
            begin(own_site)
            gate.open()
            # More rounds than an entry has attempts: none of them is the rows' fault.
            wait_until(lambda: caplog.text.count("Redis does not serve") >= 4, what="the worker's warnings")
            assert not asked.done()
            end(own_site)
            assert np.array_equal(asked.result(60), vectors_of(TEXTS))
            own_site.await_empty()
        assert producer.queue_state("embed").dead == 0


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.usefixtures("own_server")
def test_a_bulk_run_outlives_the_trouble(own_site: Site, trouble: str, caplog: pytest.LogCaptureFixture) -> None:
    fill, make_room, _ = TROUBLES[trouble]
    with Engine(own_site), own_site.producer() as producer, ThreadPoolExecutor(1) as threads:
        texts = (f"bulk {number}" for number in range(300))
        vectors = producer.iter_embed(texts, window=20)
        first = [next(vectors) for _ in range(10)]
        fill(own_site)
        rest = threads.submit(lambda: list(vectors))
        wait_until(lambda: "still waiting" in caplog.text, what="a refusal")
        make_room(own_site)
        found = first + rest.result(60)
    assert np.array_equal(found, vectors_of([f"bulk {number}" for number in range(300)]))
    assert own_site.waiting(Lane.BULK) == 0


def test_a_full_redis_is_drained_by_workers_old_and_new(own_site: Site) -> None:
    """Jobs alone have filled it: nothing can be evicted, and nothing written, not even a heartbeat or a model card."""
    with Engine(own_site), own_site.producer() as producer:
        producer.embed("before")
    own_site.client.delete(own_site.queue().card)
    with own_site.producer(timeout_s=0.2) as hasty, pytest.raises(TimeoutError):
        hasty.embed_many([f"{number} {'x' * 20_000}" for number in range(100)])
    own_site.client.config_set("maxmemory-policy", "volatile-lfu")
    own_site.client.config_set("maxmemory", str(int(own_site.client.info("memory")["used_memory"]) - 1_000_000))

    with Engine(own_site):
        wait_until(lambda: own_site.waiting() == 0, what="the end of jobs that nobody waits for")
        with own_site.producer() as producer:
            assert np.array_equal(producer.embed("there is room"), vector_of("there is room"))
            wait_until(lambda: producer.queue_state("embed").card is not None, what="the model card")
