"""The engine in trouble: garbage on the streams, stops and returns, a Redis that fails; nothing ends it."""

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis

from producer.wire.codec import encode_header
from producer.wire.keys import GROUP, Kind, Lane
from producer.wire.messages import FailureReply, JobHeader
from tests.unit.engine import Shift, add_job, dead_letters, lane_is_empty, reply_of, send
from tests.unit.fakes import EMBED_QUEUE, pair, query, result_of

INTERACTIVE, BULK = Lane.INTERACTIVE, Lane.BULK
HEADER = encode_header(JobHeader(kind=Kind.QUERY, budget_ms=60_000))


GARBAGE: dict[str, tuple[dict[bytes, bytes], str]] = {
    "no header": ({b"colour": b"blue"}, "malformed_message"),
    "header is no msgpack": ({b"job": b"\xff\x00", b"0": b"a"}, "malformed_message"),
    "other version": ({b"job": HEADER.replace(b"\xa1v\x01", b"\xa1v\x02"), b"0": b"a"}, "unsupported_version"),
    "no rows": ({b"job": HEADER}, "malformed_message"),
    "row not UTF-8": ({b"job": HEADER, b"0": b"\xff"}, "malformed_message"),
    "query that is a number": ({b"job": b"\x84" + HEADER[1:] + b"\xa5query\x05", b"0": b"a"}, "malformed_message"),
    "query that is true": ({b"job": b"\x84" + HEADER[1:] + b"\xa5query\xc3", b"0": b"a"}, "malformed_message"),
    "blank text": ({b"job": HEADER, b"0": b" \n"}, "empty_text"),
    "pair": (
        {b"job": encode_header(JobHeader(kind=Kind.PAIR, budget_ms=9, query="q")), b"0": b"a"},
        "malformed_message",
    ),
}


@pytest.mark.parametrize(("fields", "code"), GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_buried_with_its_reason_and_ends_nothing_else(
    client: redis.Redis, shift: Shift, fields: dict[bytes, bytes], code: str
) -> None:
    entry_id = add_job(client, fields)
    send(client, query("good"))

    shift.work()

    (letter,) = dead_letters(client)
    assert letter[b"dead:code"].decode() == code
    assert letter[b"dead:reason"]
    assert (letter[b"dead:entry"], letter[b"dead:lane"], letter[b"dead:worker"]) == (
        entry_id,
        b"interactive",
        b"worker",
    )
    assert {name: value for name, value in letter.items() if not name.startswith(b"dead:")} == fields
    assert lane_is_empty(client, INTERACTIVE)
    assert reply_of(client, query("good")) == result_of(query("good"))
    assert shift.counts["dead_interactive"] == 1


def test_rows_of_the_other_task_are_rejected_and_their_callers_told(client: redis.Redis, shift: Shift) -> None:
    row = pair("document")
    add_job(client, {b"job": encode_header(JobHeader(kind=Kind.PAIR, budget_ms=9, query="q")), b"0": b"document"})

    shift.work()

    assert shift.task.batches == []
    assert [letter[b"dead:code"] for letter in dead_letters(client)] == [b"malformed_message"]
    reply = reply_of(client, row)
    assert isinstance(reply, FailureReply)
    assert "not for embed pools" in reply.message


def test_on_stop_the_batch_is_finished_and_the_rest_handed_back_to_whoever_comes(client: redis.Redis) -> None:
    first = Shift(client, name="first", row_by_row=True)
    first.task.on_run = first.stopping.set
    send(client, *(query(text) for text in "abc"))

    first.work()

    assert first.task.batches == [["a"]]
    assert reply_of(client, query("a")) == result_of(query("a"))
    pending: Any = client.xpending_range(EMBED_QUEUE.lane(INTERACTIVE), GROUP, "-", "+", 10)
    assert [entry["time_since_delivered"] >= 3_600_000 for entry in pending] == [True, True]

    second = Shift(client, name="second")
    second.work()

    assert second.task.batches == [["b", "c"]]
    assert lane_is_empty(client, INTERACTIVE)


def test_a_worker_that_comes_back_finds_what_it_had_in_hand(client: redis.Redis, shift: Shift) -> None:
    send(client, query("a"))
    shift.streams.prepare()
    assert len(shift.streams.read_new(dict.fromkeys(Lane, 10))) == 1

    shift.work()

    assert shift.task.batches == [["a"]]
    assert lane_is_empty(client, INTERACTIVE)


def test_jobs_that_wait_since_before_the_first_worker_count(client: redis.Redis, shift: Shift) -> None:
    send(client, query("early"))
    client.xgroup_create(EMBED_QUEUE.lane(BULK), GROUP, id="0", mkstream=True)

    shift.work()

    assert shift.task.batches == [["early"]]


def test_lost_groups_are_made_again_from_the_start(client: redis.Redis, shift: Shift) -> None:
    shift.streams.prepare()
    client.flushall()
    send(client, query("after"))

    assert shift.streams.take_over(1000, dict.fromkeys(Lane, 10)) == []
    (entry,) = shift.streams.read_new(dict.fromkeys(Lane, 10))

    assert entry.fields[b"0"] == b"after"


@pytest.mark.parametrize("error", [redis.ConnectionError("gone"), redis.ResponseError("LOADING"), OSError("reset")])
def test_a_redis_that_fails_for_a_while_is_waited_for(client: redis.Redis, shift: Shift, error: Exception) -> None:
    send(client, query("a"))
    shift.streams.fail_once("read_new", error)

    shift.work()

    assert shift.task.batches == [["a"]]
    assert lane_is_empty(client, INTERACTIVE)


@pytest.mark.parametrize("seed", range(3))
def test_no_row_is_lost_or_buried_however_often_redis_fails_beside_or_after_the_model(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """A command fails before it reaches Redis, or its reply is lost; half of them in the thread that reads ahead."""
    chance, threads = random.Random(seed), set()
    monkeypatch.setattr("workers.runner._BACKOFF_S", (0.0,))
    shift = Shift(client, batch_tokens=3, tokens_per_s=1.0)  # so slow that there is always time to read ahead
    rows = {lane: [query(f"{lane} {number}") for number in range(15)] for lane in Lane}
    for lane in Lane:
        send(client, *rows[lane], lane=lane)

    def failing(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            threads.add(threading.current_thread())
            fate = chance.random()
            if fate < 0.1:
                raise redis.ConnectionError("never sent")
            answer = method(*arguments)
            if fate > 0.9:
                raise redis.ConnectionError("the reply is lost")
            return answer

        return call

    for name in ("finish", "read_new", "read_own", "replies", "take_over"):
        monkeypatch.setattr(shift.streams, name, failing(getattr(shift.streams, name)))

    shift.work()

    assert len(threads) == 2
    assert all(reply_of(client, row) == result_of(row) for lane in Lane for row in rows[lane])
    assert all(lane_is_empty(client, lane) for lane in Lane)
    assert dead_letters(client) == []
    assert shift.ledger.open_rows == 0


def test_rows_whose_replies_could_not_be_written_are_not_completed(client: redis.Redis, shift: Shift) -> None:
    """The replies come first: an error between leaves the entry, and it is run again."""
    send(client, query("a"))
    shift.streams.fail_once("finish", redis.ConnectionError("gone"))

    shift.work()

    assert shift.task.batches == [["a"], ["a"]]
    assert reply_of(client, query("a")) == result_of(query("a"))
    assert lane_is_empty(client, INTERACTIVE)


def test_huge_garbage_is_buried_without_its_fields(client: redis.Redis, shift: Shift) -> None:
    add_job(client, {b"job": HEADER, b"0": b"x" * 300_000})

    shift.work()

    (letter,) = dead_letters(client)
    assert letter[b"dead:code"] == b"text_too_long"
    assert all(name.startswith(b"dead:") for name in letter)
