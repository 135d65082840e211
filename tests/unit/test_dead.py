"""The library for dead letters on an in-memory Redis: reading, retrying with nothing lost, purging, refusals."""

from collections.abc import Callable, Iterator
from typing import Any

import fakeredis
import pytest
import redis

import producer
from producer import DeadLetters, HeadraceError, InvalidRequest, RedisUnavailable, RetryReport
from producer.wire.codec import MAX_BUDGET_MS, decode_job, encode_reply
from producer.wire.keys import Lane
from producer.wire.messages import Row
from tests.unit.fakes import EMBED_QUEUE, RERANK_QUEUE, failure, pair, passage, query, result_of
from tests.unit.letters import buried, bury, bury_raw, letter_of
from tests.unit.scripting import enqueue, entries, texts, wait_ttl_ms, waiting

A, B, C = passage("a"), passage("b"), passage("c")
GARBAGE = {b"\xff": b"\x00", b"dead:code": b"\xfe"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
    """Let the library connect to one in-memory Redis; return a plain client of it."""
    shared = fakeredis.FakeServer()
    monkeypatch.setattr("producer.connection.connect", lambda *_, **__: fakeredis.FakeRedis(server=shared))
    client: redis.Redis = fakeredis.FakeRedis(server=shared)
    return client


@pytest.fixture
def dead(server: redis.Redis) -> Iterator[DeadLetters]:
    with DeadLetters.from_url("redis://in-memory", embed_model="offline", rerank_model="offline") as letters:
        yield letters


def limited(lane_limit: int) -> DeadLetters:
    return DeadLetters.from_url(
        "redis://in-memory", embed_model="offline", rerank_model="offline", lane_limit=lane_limit
    )


def report(**numbers: Any) -> RetryReport:
    nothing: dict[str, Any] = {
        "retried": 0,
        "already_computed": 0,
        "unreadable": 0,
        "missing": (),
        "lane_full": False,
    }
    return RetryReport(**{**nothing, **numbers})


def compute(server: redis.Redis, row: Row) -> None:
    """Leave a row's result in the cache."""
    queue = RERANK_QUEUE if row.query is not None else EMBED_QUEUE
    server.set(queue.reply(row.digest), encode_reply(result_of(row)))


def test_letters_are_listed_newest_first_or_oldest_first(server: redis.Redis, dead: DeadLetters) -> None:
    ids = [bury(server, row) for row in (A, B, C)]

    assert [letter.id for letter in dead.list("embed")] == ids[::-1]
    assert [letter.id for letter in dead.list("embed", newest_first=False)] == ids
    assert [letter.id for letter in dead.list("embed", limit=2)] == ids[:0:-1]
    assert dead.list("rerank") == []
    assert dead.count("embed") == 3


@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_follow_each_other_without_gap_or_repetition(
    server: redis.Redis, dead: DeadLetters, newest_first: bool
) -> None:
    ids = [bury(server, passage(f"t{number}")) for number in range(250)]

    found = [letter.id for letter in dead.iterate("embed", newest_first=newest_first)]

    assert found == (ids[::-1] if newest_first else ids)
    assert len(dead.list("embed", limit=205)) == 205


def test_reading_ends_although_letters_keep_coming(server: redis.Redis, dead: DeadLetters) -> None:
    bury(server, A)

    found = [bury(server, B) for _ in dead.iterate("embed", newest_first=False)]

    assert len(found) == 1


def test_one_letter_is_read_with_its_job(server: redis.Redis, dead: DeadLetters) -> None:
    bury(server, A)
    letter_id = bury(server, B, code="worker_died", deliveries=3)

    letter = dead.get("embed", letter_id)

    assert letter.job is not None
    assert (letter.id, letter.code, letter.deliveries, letter.job.rows) == (letter_id, "worker_died", 3, (B,))


def test_a_letter_that_is_not_there_has_its_code(dead: DeadLetters) -> None:
    with pytest.raises(InvalidRequest, match=r"embed:offline-.* has no dead letter 7-0") as caught:
        dead.get("embed", "7-0")
    assert caught.value.code == "no_such_letter"


@pytest.mark.parametrize(
    "letter_id",
    [
        "",
        "7",
        "7-",
        "-",
        "+",
        "*",
        "(7-0",
        "7-0 ",
        "7-0\n",
        "07-0",
        "\u0667-0",
        f"{2**64}-0",
        "9" * 5000 + "-1",
        b"7-0",
        7,
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda dead, letter_id: dead.get("embed", letter_id),
        lambda dead, letter_id: dead.retry("embed", ["1-1", letter_id]),
        lambda dead, letter_id: dead.purge("embed", ["1-1", letter_id]),
    ],
    ids=["get", "retry", "purge"],
)
def test_what_is_no_id_is_refused_before_anything_is_sent(
    dead: DeadLetters, monkeypatch: pytest.MonkeyPatch, call: Callable[[DeadLetters, Any], Any], letter_id: Any
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something is sent")

    monkeypatch.setattr(fakeredis.FakeRedis, "execute_command", refuse)
    monkeypatch.setattr(fakeredis.FakeRedis, "pipeline", refuse)

    with pytest.raises(InvalidRequest) as caught:
        call(dead, letter_id)
    assert caught.value.code == "bad_letter_id"


@pytest.mark.parametrize(
    "call",
    [
        lambda dead: dead.list("embedd"),
        lambda dead: dead.iterate("embedd"),
        lambda dead: dead.list("embed", limit=0),
        lambda dead: dead.list("embed", limit=True),
        lambda dead: dead.purge("embed", "7-0"),
    ],
)
def test_what_cannot_be_a_request_is_refused(dead: DeadLetters, call: Callable[[Any], Any]) -> None:
    with pytest.raises(InvalidRequest):
        call(dead)


def test_a_retried_row_waits_on_the_bulk_lane_for_a_day_and_its_letter_is_gone(
    server: redis.Redis, dead: DeadLetters
) -> None:
    ids = [bury(server, A), bury(server, query("b")), bury(server, C)]

    assert dead.retry("embed", ids[:2]) == report(retried=2)

    jobs = [decode_job(fields) for _, fields in entries(server, Lane.BULK)]
    assert {(job.header.kind, job.rows[0].text, job.header.budget_ms) for job in jobs} == {
        ("passage", "a", MAX_BUDGET_MS),
        ("query", "b", MAX_BUDGET_MS),
    }
    assert buried(server) == ids[2:]
    assert waiting(server, A).keys() == {b"entry", b"hint:retry"}
    assert wait_ttl_ms(server, A) > MAX_BUDGET_MS - 60_000


def test_the_channel_that_nobody_listens_to_is_in_the_namespace(server: redis.Redis) -> None:
    with DeadLetters.from_url("redis://in-memory", embed_model="offline", namespace="shop") as letters:
        bury(server, A, queue=letters.queues["embed"])
        letters.retry_all("embed")

        waiters = server.hgetall(letters.queues["embed"].wait(A.digest))
    assert waiters.keys() == {b"entry", b"shop:hint:retry"}


def test_a_row_that_is_computed_already_is_not_queued_again(server: redis.Redis, dead: DeadLetters) -> None:
    bury(server, A)
    bury(server, B)
    compute(server, A)

    assert dead.retry_all("embed") == report(retried=1, already_computed=1)

    assert texts(server, Lane.BULK) == ["b"]
    assert buried(server) == []


def test_a_failure_in_the_cache_is_no_result(server: redis.Redis, dead: DeadLetters) -> None:
    bury(server, A)
    server.set(EMBED_QUEUE.reply(A.digest), encode_reply(failure()))

    assert dead.retry_all("embed") == report(retried=1)


def test_a_row_in_flight_is_not_queued_twice(server: redis.Redis, dead: DeadLetters) -> None:
    enqueue(server, A, lane=Lane.INTERACTIVE)
    bury(server, A)
    bury(server, A)

    assert dead.retry_all("embed") == report(retried=2)

    assert (texts(server, Lane.INTERACTIVE), texts(server, Lane.BULK)) == (["a"], [])
    assert waiting(server, A).keys() == {b"entry", b"one", b"hint:retry"}


def test_a_letter_without_a_job_for_this_pool_stays(server: redis.Redis, dead: DeadLetters) -> None:
    stays = [
        bury_raw(server, GARBAGE),
        bury_raw(server, letter_of()),
        bury_raw(server, letter_of(*(passage("x" * 60_000 + str(n)) for n in range(3)))),
        bury(server, pair("d"), queue=EMBED_QUEUE),
    ]
    bury(server, A)

    assert dead.retry_all("embed") == report(retried=1, unreadable=4)
    assert dead.retry("embed", stays) == report(unreadable=4)

    assert buried(server) == stays
    assert dead.get("embed", stays[-1]).unreadable == "rows of kind pair are not for embed pools"


def test_ids_that_do_not_exist_are_reported_and_the_rest_is_done(server: redis.Redis, dead: DeadLetters) -> None:
    letter_id = bury(server, A)

    assert dead.retry("embed", ["7-0", letter_id, "8-0", letter_id]) == report(retried=1, missing=("7-0", "8-0"))
    assert dead.retry("embed", []) == report()
    assert dead.retry_all("embed") == report()


def test_pairs_of_one_query_share_jobs_again(server: redis.Redis, dead: DeadLetters) -> None:
    pairs = [pair(f"d{number}", question=f"q{number % 2}") for number in range(60)]
    for row in pairs:
        bury(server, row)
    compute(server, pairs[4])

    assert dead.retry_all("rerank") == report(retried=59, already_computed=1)

    jobs = [decode_job(fields) for _, fields in entries(server, key=RERANK_QUEUE.lane(Lane.BULK))]
    assert [(job.header.query, len(job.rows)) for job in jobs] == [("q0", 29), ("q1", 30)]
    assert {row for job in jobs for row in job.rows} == set(pairs) - {pairs[4]}


def test_a_letter_of_many_pairs_goes_only_when_all_are_taken(server: redis.Redis) -> None:
    ids = [bury(server, *(pair(f"{name}{number}") for number in range(60))) for name in "de"]

    with limited(100) as small:
        assert small.retry_all("rerank") == report(retried=1, lane_full=True)
    assert buried(server, RERANK_QUEUE) == ids[1:], "the lane took 40 of its 60 pairs"

    with limited(200) as larger:
        assert larger.retry_all("rerank") == report(retried=1)
    assert buried(server, RERANK_QUEUE) == []
    jobs = [decode_job(fields) for _, fields in entries(server, key=RERANK_QUEUE.lane(Lane.BULK))]
    assert [len(job.rows) for job in jobs] == [100, 20]


def test_a_full_lane_ends_the_retry_and_loses_nothing(server: redis.Redis) -> None:
    ids = [bury(server, passage(f"t{number}")) for number in range(250)]

    with limited(120) as small:
        assert small.retry_all("embed") == report(retried=120, lane_full=True)
        assert small.retry("embed", [*ids[100:140], "7-0"]) == report(missing=(*ids[100:120], "7-0"), lane_full=True)

    assert buried(server) == ids[120:]
    assert sorted(texts(server, Lane.BULK)) == sorted(f"t{number}" for number in range(120))


def name_of(packed: list[bytes]) -> bytes:
    """The name of the command that is sent (RESP: its length in one line, then itself)."""
    return b"".join(packed).split(b"\r\n", 3)[2]


def test_many_letters_and_large_ones_go_in_calls_of_bounded_size(
    server: redis.Redis, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        bury(server, pair("d" * 60_000 + str(number)))
    for number in range(250):
        bury(server, pair(f"d{number}"))
    sizes: list[int] = []
    connection: Any = server.connection_pool.connection_class
    run = connection.send_packed_command

    def note(self: Any, packed: list[bytes], **options: Any) -> Any:
        if name_of(packed) == b"EVALSHA":
            sizes.append(sum(map(len, packed)))
        return run(self, packed, **options)

    monkeypatch.setattr(connection, "send_packed_command", note)

    assert dead.retry_all("rerank") == report(retried=280)

    assert max(sizes) < 1.2 * 2**20
    assert buried(server, RERANK_QUEUE) == []


def test_letters_that_die_again_during_a_retry_wait_for_the_next(
    server: redis.Redis, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(150):
        bury(server, passage(f"t{number}"))
    delete = fakeredis.FakeRedis.xdel

    def die_again(self: Any, key: str, *ids: str) -> Any:
        for letter_id in ids:
            bury(server, passage(f"again {letter_id}"))
        return delete(self, key, *ids)

    monkeypatch.setattr(fakeredis.FakeRedis, "xdel", die_again)

    assert dead.retry_all("embed") == report(retried=150)
    assert len(buried(server)) == 150


@pytest.mark.parametrize("failing", ["EVALSHA", "XDEL"])
def test_a_retry_that_fails_in_the_middle_keeps_the_letter(
    server: redis.Redis, dead: DeadLetters, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    letter_id = bury(server, A)
    connection: Any = server.connection_pool.connection_class
    run = connection.send_packed_command

    def fail(self: Any, packed: list[bytes], **options: Any) -> Any:
        if name_of(packed) == failing.encode():
            raise redis.ConnectionError("gone")
        return run(self, packed, **options)

    with monkeypatch.context() as patch:
        patch.setattr(connection, "send_packed_command", fail)
        with pytest.raises(RedisUnavailable):
            dead.retry_all("embed")
    assert buried(server) == [letter_id]

    assert dead.retry_all("embed") == report(retried=1)
    assert texts(server, Lane.BULK) == ["a"]


def test_purging_deletes_and_counts(server: redis.Redis, dead: DeadLetters) -> None:
    ids = [bury(server, passage(f"t{number}")) for number in range(1200)]
    bury(server, pair("d"))

    assert dead.purge("embed", ["7-0", *ids[:1100], ids[0]]) == 1100
    assert dead.purge("embed", []) == 0
    assert dead.purge_all("embed") == 100
    assert dead.purge_all("embed") == 0
    assert (dead.count("embed"), dead.count("rerank")) == (0, 1)
    assert texts(server, Lane.BULK) == []


def test_errors_of_redis_are_ours(dead: DeadLetters, server: redis.Redis) -> None:
    server.set(EMBED_QUEUE.dead, "not a stream")

    for call in (dead.count, dead.list, dead.retry_all, dead.purge_all):
        with pytest.raises(RedisUnavailable) as caught:
            call("embed")
        assert caught.value.code == "redis_refused"
        assert isinstance(caught.value, HeadraceError)


def test_making_one_connects_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a constructor opens a socket")

    monkeypatch.setattr("socket.socket", refuse)

    DeadLetters.from_env({"REDIS_URL": "redis://unreachable.invalid"}).close()
    with pytest.raises(producer.ConfigurationError):
        DeadLetters.from_url("localhost")
