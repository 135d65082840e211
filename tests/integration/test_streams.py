"""What is known to go wrong with streams, on every kind of server; docs/reliability.md lists it row by row."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import redis

from console.redis_server import RedisServer
from producer.wire.keys import GROUP, Lane
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import vector_of, vectors_of
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until
from workers.entries import Entry
from workers.streams import Streams

INTERACTIVE = Lane.INTERACTIVE
ROOM = {INTERACTIVE: 10}
EVICTING = ("--maxmemory", "20mb", "--maxmemory-policy", "volatile-lfu")


def worker(site: Site, name: str = "worker/0") -> Streams:
    streams = Streams(site.client, site.queue(), name)
    streams.prepare()
    return streams


def add(site: Site, count: int) -> list[bytes]:
    """Put entries on the interactive lane as they come."""
    return [site.client.xadd(site.queue().lane(INTERACTIVE), {"number": str(n)}) for n in range(count)]  # type: ignore[misc]


def ids(entries: list[Entry]) -> list[bytes]:
    return [entry.id for entry in entries]


def deliveries(site: Site) -> list[int]:
    pending: Any = site.client.xpending_range(site.queue().lane(INTERACTIVE), GROUP, "-", "+", 100)
    return [one["times_delivered"] for one in pending]


def test_an_entry_that_was_deleted_while_pending_is_acknowledged_and_not_returned(site: Site) -> None:
    dead, other = worker(site, "dead/0"), worker(site)
    first, second, third = add(site, 3)
    dead.read_new(ROOM)
    site.client.xdel(site.queue().lane(INTERACTIVE), first, third)

    assert ids(other.take_over(0, ROOM)) == [second]
    assert site.pending() == 1
    site.client.xdel(site.queue().lane(INTERACTIVE), second)
    assert other.read_own(10) == []
    assert site.pending() == 0


def test_abandoned_entries_behind_many_live_ones_are_found(site: Site) -> None:
    """More live ones than ten times the count, at which XAUTOCLAIM would stop to look."""
    alive, dead, other = (worker(site, name) for name in ("alive/0", "dead/0", "other/0"))
    lane = site.queue().lane(INTERACTIVE)
    every = add(site, 300)
    alive.read_new({INTERACTIVE: 250})
    dead.read_new({INTERACTIVE: 50})
    site.client.xclaim(lane, GROUP, "dead/0", 0, every[250:], idle=60_000, justid=True)  # type: ignore[arg-type]

    found = ids(other.take_over(30_000, ROOM))
    assert found == every[250:260]
    assert ids(other.take_over(30_000, {INTERACTIVE: 100})) == every[260:]


def test_a_live_entry_is_nobody_elses(site: Site) -> None:
    alive, other = worker(site, "alive/0"), worker(site, "other/0")
    add(site, 3)
    alive.read_new(ROOM)

    assert other.take_over(30_000, ROOM) == []
    assert other.read_own(10) == []


def test_only_attempts_raise_the_delivery_count(site: Site) -> None:
    first, second = worker(site, "first/0"), worker(site, "second/0")
    (entry_id,) = add(site, 1)
    first.read_new(ROOM)
    for _ in range(3):
        first.renew(INTERACTIVE, [entry_id])
        first.read_own(10)
        second.take_over(0, ROOM)
    assert deliveries(site) == [1]

    assert second.note_attempt(INTERACTIVE, entry_id, 2)
    assert deliveries(site) == [2]
    assert [entry.attempts for entry in first.take_over(0, ROOM)] == [2]
    site.client.xack(site.queue().lane(INTERACTIVE), GROUP, entry_id)
    assert not second.note_attempt(INTERACTIVE, entry_id, 3), "it is no longer pending"


def test_what_is_handed_back_is_there_for_others_at_once_and_counts_as_undelivered(site: Site) -> None:
    first, second = worker(site, "first/0"), worker(site, "second/0")
    unbegun, begun = add(site, 2)
    first.read_new(ROOM)
    first.hand_back({(INTERACTIVE, unbegun): 0, (INTERACTIVE, begun): 2})

    assert [(entry.id, entry.attempts) for entry in second.take_over(3_600_000, ROOM)] == [(unbegun, 0), (begun, 2)]
    assert deliveries(site) == [1, 2]


def test_a_blocked_reader_serves_again_when_its_streams_were_deleted(site: Site) -> None:
    with Engine(site), site.producer() as producer:
        producer.embed("before")
        wait_until(lambda: any(c["cmd"] == "xreadgroup" for c in site.client.client_list()), what="a blocked reader")
        site.client.delete(*(site.queue().lane(lane) for lane in Lane))
        assert np.array_equal(producer.embed("after"), vector_of("after"))


def test_a_blocked_reader_goes_on_beating(site: Site) -> None:
    """The heartbeat has a connection of its own."""
    with Engine(site, lease_s=1.0), site.producer() as producer:
        producer.embed("one")

        def beat() -> int:
            (one,) = producer.queue_state("embed").workers
            return one.heartbeat.beat_at_ms

        first = beat()
        wait_until(lambda: beat() > first + 1000, what="further beats")


@pytest.fixture
def evicting(each_server: str, servers: Any) -> Iterator[RedisServer]:
    """A small server of each kind that evicts what has a lifetime."""
    program = next(servers.programs[name] for name in servers.programs if servers.url(name) == each_server)
    with RedisServer(program, extra=EVICTING) as server:
        yield server


def test_eviction_takes_cached_results_and_never_a_job(evicting: RedisServer) -> None:
    with redis.Redis.from_url(evicting.url) as client:
        site = Site(url=evicting.url, namespace="evicting", client=client)
        texts = [f"text {number}" for number in range(50)]
        with site.producer(timeout_s=0.1) as hasty, pytest.raises(TimeoutError):
            hasty.embed_many(texts)
        for number in range(4000):
            client.set(f"evicting:emb:other:{number}", b"x" * 10_000, ex=86_400)
        assert int(client.info("stats")["evicted_keys"]) > 1000
        assert site.waiting() == len(texts)
        assert client.exists(site.queue().load)
        with Engine(site), site.producer() as producer:
            assert np.array_equal(producer.embed_many(texts), vectors_of(texts))
