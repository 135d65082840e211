"""The scripts that end rows, on an in-memory Redis: completion with its hints, and expiry."""

from typing import Any

import redis

from producer.wire import scripts
from producer.wire.keys import GROUP, Lane
from producer.wire.messages import Row
from tests.unit.fakes import EMBED_QUEUE, passage, run_script
from tests.unit.scripting import complete, enqueue, entries, expire, heard, load, read, size, texts, waiting

INTERACTIVE, BULK = Lane.INTERACTIVE, Lane.BULK
LONG_AGO = b"1-0"
A, B, C = passage("a"), passage("b"), passage("c")


def test_completing_wakes_each_waiter_once_with_all_its_rows_and_leaves_nothing(client: redis.Redis) -> None:
    pubsub = client.pubsub()
    pubsub.subscribe("one", "two", "other")
    enqueue(client, A, B, channel="one")
    enqueue(client, B, C, channel="two")
    enqueue(client, passage("d"), channel="other")
    ids = read(client)

    assert complete(client, [A, B, C], ids[:3]) == 3

    assert sorted(heard(pubsub)) == [(b"one", A.digest + B.digest), (b"two", B.digest + C.digest)]
    assert texts(client) == ["d"]
    assert client.keys("*wait*") == [EMBED_QUEUE.wait(passage("d").digest).encode()]
    pending: Any = client.xpending(EMBED_QUEUE.lane(INTERACTIVE), GROUP)
    assert pending["pending"] == 1


def test_completing_again_wakes_nobody(client: redis.Redis) -> None:
    pubsub = client.pubsub()
    enqueue(client, A)
    ids = read(client)
    complete(client, [A], ids)
    pubsub.subscribe("one")

    assert complete(client, [A], ids) == 0
    assert heard(pubsub) == []


def test_some_rows_of_an_entry_may_be_completed_and_the_entry_stays(client: redis.Redis) -> None:
    pubsub = client.pubsub()
    pubsub.subscribe("one")
    enqueue(client, A, B)

    assert complete(client, [A], []) == 0

    assert heard(pubsub) == [(b"one", A.digest)]
    assert texts(client) == ["a", "b"]
    assert waiting(client, A) == {}
    assert waiting(client, B).keys() == {b"entry", b"one"}


def test_an_entry_without_readable_rows_may_be_completed(client: redis.Redis) -> None:
    client.xadd(EMBED_QUEUE.lane(BULK), {"garbage": "x"})
    ids = read(client, BULK)

    assert complete(client, [], ids, lane=BULK) == 1
    assert entries(client, BULK) == []


def old_job(client: redis.Redis, *rows: Row, deadlines: dict[str, int]) -> bytes:
    """A job from long ago in a worker's hand, with one waiter for each channel and deadline."""
    client.xadd(EMBED_QUEUE.lane(INTERACTIVE), {"job": b"header", "0": b"text"}, id=LONG_AGO)
    for row in rows:
        client.hset(EMBED_QUEUE.wait(row.digest), mapping={"entry": b"interactive:" + LONG_AGO})
    for channel, deadline_ms in deadlines.items():
        client.hset(EMBED_QUEUE.wait(rows[-1].digest), channel, str(deadline_ms))
    read(client)
    return LONG_AGO


def test_a_job_is_dropped_when_nobody_has_time_left(client: redis.Redis) -> None:
    entry_id = old_job(client, A, B, deadlines={"one": 1000, "two": 2000})

    assert expire(client, [A, B], entry_id) == 1

    assert entries(client) == []
    assert client.keys("*wait*") == []
    pending: Any = client.xpending(EMBED_QUEUE.lane(INTERACTIVE), GROUP)
    assert pending["pending"] == 0


def test_a_job_runs_while_one_waiter_of_one_row_has_time_left(client: redis.Redis) -> None:
    entry_id = old_job(client, A, B, deadlines={"one": 1000, "late": 4_000_000_000_000})

    assert expire(client, [A, B], entry_id) == 0

    assert [entry for entry, _ in entries(client)] == [entry_id]
    assert waiting(client, B).keys() == {b"entry", b"one", b"late"}


def test_a_job_that_nobody_knows_any_more_is_dropped(client: redis.Redis) -> None:
    entry_id = old_job(client, A, deadlines={})
    client.delete(EMBED_QUEUE.wait(A.digest))

    assert expire(client, [A], entry_id) == 1
    assert entries(client) == []


def test_dropping_a_job_leaves_a_row_that_flies_with_another_entry(client: redis.Redis) -> None:
    entry_id = old_job(client, A, deadlines={"one": 1000})
    client.hset(EMBED_QUEUE.wait(A.digest), "entry", "bulk:5-0")

    assert expire(client, [A], entry_id) == 1
    assert waiting(client, A)[b"entry"] == b"bulk:5-0"


def test_a_caller_who_joins_late_keeps_the_job_alive(client: redis.Redis) -> None:
    entry_id = old_job(client, A, deadlines={"one": 1000})

    assert enqueue(client, A, channel="late")[:2] == [0, 1]
    assert expire(client, [A], entry_id) == 0


def test_what_ends_takes_its_load_away_once(client: redis.Redis) -> None:
    enqueue(client, A, B, C)
    first, second, third = read(client)
    sizes = [size(client, entry_id) for entry_id in (first, second, third)]

    complete(client, [A], [first])
    complete(client, [A], [first])
    assert load(client) == (2, sizes[1].size_bytes + sizes[2].size_bytes)
    client.delete(EMBED_QUEUE.wait(B.digest))
    assert expire(client, [B], second) == 1
    complete(client, [C], [third])
    assert load(client) == (0, 0)


def test_consumers_are_forgotten_when_they_are_long_gone_and_hold_nothing(client: redis.Redis) -> None:
    stream = EMBED_QUEUE.lane(INTERACTIVE)
    enqueue(client, A)
    read(client)
    for name in ("idle", "self"):
        client.xgroup_createconsumer(stream, GROUP, name)

    def forget(idle_ms: int) -> int:
        call = scripts.forget(EMBED_QUEUE, INTERACTIVE, idle_ms=idle_ms, keep="self")
        return int(run_script(client, call))

    assert forget(60_000) == 0
    assert forget(-1) == 1
    left: Any = client.xinfo_consumers(stream, GROUP)
    assert {consumer["name"] for consumer in left} == {b"worker", b"self"}, "one holds a job, the other is who asks"


def test_a_name_is_claimed_only_by_who_saw_its_last_heartbeat(client: redis.Redis) -> None:
    def claim(seen: bytes, beat: bytes) -> Any:
        return run_script(client, scripts.claim(EMBED_QUEUE, "host/0", seen, beat))

    assert [claim(b"", b"first"), claim(b"", b"second"), claim(b"first", b"third"), claim(b"first", b"fourth")] == [
        1,
        0,
        1,
        0,
    ]
    assert client.hgetall(EMBED_QUEUE.workers) == {b"host/0": b"third"}
