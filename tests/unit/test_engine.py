"""The engine on an in-memory Redis with a small task: what becomes of good, bad, late and cached rows."""

import pytest
import redis

from producer.wire.codec import decode_job, encode_header, encode_reply
from producer.wire.keys import Kind, Lane
from producer.wire.messages import FailureReply, JobHeader, Row, ScoreReply
from tests.unit.engine import (
    Shift,
    add_job,
    dead_letters,
    jobs_left,
    lane_is_empty,
    reply_of,
    reply_ttl_s,
    send,
    subscribe,
)
from tests.unit.fakes import CHANNEL, EMBED_QUEUE, passage, query, result_of
from workers.tasks import ModelFailed

INTERACTIVE, BULK = Lane.INTERACTIVE, Lane.BULK
HEADER = encode_header(JobHeader(kind=Kind.QUERY, budget_ms=60_000))


def test_rows_of_both_lanes_are_computed_answered_and_ended(client: redis.Redis, shift: Shift) -> None:
    send(client, query("a"), query("b"))
    send(client, passage("c"), lane=BULK)

    shift.work()

    for row in (query("a"), query("b"), passage("c")):
        assert reply_of(client, row) == result_of(row)
        assert 86_000 < reply_ttl_s(client, row) <= 86_400
    assert lane_is_empty(client, INTERACTIVE)
    assert lane_is_empty(client, BULK)
    assert client.keys("*wait*") == []
    assert shift.counts == {"rows": 3, "batches": 2, "tokens": 3, "text_bytes": 3, "busy_ms": 2}


def test_those_who_wait_are_woken_when_the_reply_is_there(client: redis.Redis, shift: Shift) -> None:
    pubsub = subscribe(client, CHANNEL)
    send(client, query("a"))

    shift.work()

    assert pubsub.get_message(timeout=0)["data"] == query("a").digest


def test_interactive_rows_run_before_bulk_rows_that_came_earlier(client: redis.Redis) -> None:
    shift = Shift(client, row_by_row=True)
    send(client, passage("bulk 1"), passage("bulk 2"), lane=BULK)
    send(client, query("person"))

    shift.work()

    assert shift.task.batches == [["person"], ["bulk 1"], ["bulk 2"]]


def test_a_text_that_is_too_long_is_a_failure_with_its_code(client: redis.Redis) -> None:
    shift = Shift(client, max_text_bytes=10)
    send(client, query("x" * 11), query("é" * 6), query("x" * 10))

    shift.work()

    assert shift.task.batches == [["x" * 10]]
    for text in ("x" * 11, "é" * 6):
        reply = reply_of(client, query(text))
        assert isinstance(reply, FailureReply)
        assert reply.code == "text_too_long"
        assert 0 < reply_ttl_s(client, query(text)) <= 60


def test_a_text_that_is_too_long_fails_alone_in_its_job(client: redis.Redis) -> None:
    shift = Shift(client, max_text_bytes=10)
    header = encode_header(JobHeader(kind=Kind.QUERY, budget_ms=60_000))
    add_job(client, {b"job": header, b"0": b"good", b"1": b"x" * 11, b"2": b" ", b"3": b"also good"})

    shift.work()

    assert shift.task.batches == [["good", "also good"]]
    failures = [reply_of(client, query(text)) for text in ("x" * 11, " ")]
    assert [getattr(reply, "code", None) for reply in failures] == ["text_too_long", "empty_text"]
    assert lane_is_empty(client, INTERACTIVE)


def test_a_row_that_makes_the_batch_raise_fails_alone(client: redis.Redis, shift: Shift) -> None:
    shift.task.broken = {"bad"}
    send(client, query("a"), query("bad"), query("c"))

    shift.work()

    assert reply_of(client, query("a")) == result_of(query("a"))
    assert reply_of(client, query("c")) == result_of(query("c"))
    reply = reply_of(client, query("bad"))
    assert isinstance(reply, FailureReply)
    assert (reply.code, reply.message) == ("model_failed", "the model raised RuntimeError")
    assert 0 < reply_ttl_s(client, query("bad")) <= 60, "a failure is no cache entry"
    assert shift.counts["rows"] == 2
    assert lane_is_empty(client, INTERACTIVE)


def test_the_words_of_our_own_errors_leave_the_worker(client: redis.Redis, shift: Shift) -> None:
    shift.task.broken = {"bad"}
    shift.task.error = ModelFailed("the model gave a vector with NaN or infinity")
    send(client, query("bad"))

    shift.work()

    reply = reply_of(client, query("bad"))
    assert isinstance(reply, FailureReply)
    assert reply.message == "the model gave a vector with NaN or infinity"


def test_the_dead_letter_of_a_failed_row_is_a_job_of_that_row_alone(client: redis.Redis, shift: Shift) -> None:
    shift.task.broken = {"bad"}
    add_job(client, {b"job": HEADER, b"0": b"a", b"1": b"bad", b"2": b"c"})

    shift.work()

    (letter,) = dead_letters(client)
    own = {name: value for name, value in letter.items() if not name.startswith(b"dead:")}
    assert decode_job(own).rows == (query("bad"),)


def test_a_tokenizer_that_raises_does_not_end_the_engine(client: redis.Redis, shift: Shift) -> None:
    shift.task.unmeasurable = {"odd"}
    send(client, query("a"), query("odd"), query("c"))

    shift.work()

    assert sorted(text for batch in shift.task.batches for text in batch) == ["a", "c", "odd"]
    assert lane_is_empty(client, INTERACTIVE)


def test_rows_that_somebody_has_computed_meanwhile_do_not_reach_the_model(client: redis.Redis, shift: Shift) -> None:
    pubsub = subscribe(client, CHANNEL)
    send(client, query("done"), query("new"))
    client.set(EMBED_QUEUE.reply(query("done").digest), encode_reply(ScoreReply(score=1.0)))

    shift.work()

    assert shift.task.batches == [["new"]]
    assert pubsub.get_message(timeout=0)["data"] == query("done").digest
    assert lane_is_empty(client, INTERACTIVE)


@pytest.mark.parametrize(
    "value", [b"garbage", encode_reply(FailureReply(code="model_failed", message="m", failed_at_ms=1))]
)
def test_a_failure_or_a_corrupt_value_in_the_cache_is_computed_again(
    client: redis.Redis, shift: Shift, value: bytes
) -> None:
    send(client, query("a"))
    client.set(EMBED_QUEUE.reply(query("a").digest), value)

    shift.work()

    assert reply_of(client, query("a")) == result_of(query("a"))


def test_jobs_that_nobody_waits_for_any_more_are_dropped_and_counted(client: redis.Redis, shift: Shift) -> None:
    add_job(client, {b"job": HEADER, b"0": b"late"}, entry_id="1-0")
    client.hset(EMBED_QUEUE.wait(query("late").digest), mapping={"entry": "interactive:1-0", "one": "1000"})

    shift.work()

    assert shift.task.batches == []
    assert shift.counts == {"expired": 1}
    assert lane_is_empty(client, INTERACTIVE)
    assert client.keys("*wait*") == []


def test_an_old_job_that_somebody_joined_later_is_run(client: redis.Redis, shift: Shift) -> None:
    add_job(client, {b"job": HEADER, b"0": b"late"}, entry_id="1-0")
    client.hset(EMBED_QUEUE.wait(query("late").digest), mapping={"entry": "interactive:1-0", "one": "4000000000000"})

    shift.work()

    assert shift.task.batches == [["late"]]
    assert "expired" not in shift.counts


def test_texts_that_the_model_cuts_are_counted_and_said_once(
    client: redis.Redis, shift: Shift, caplog: pytest.LogCaptureFixture
) -> None:
    send(client, query("cut one"), query("cut two"), query("whole"))

    shift.work()

    assert shift.counts["truncated"] == 2
    assert caplog.text.count("truncated") == 1


def test_a_job_of_many_rows_ends_with_its_last_row(client: redis.Redis) -> None:
    left: list[int] = []
    shift = Shift(client, row_by_row=True)
    shift.task.on_run = lambda: left.append(jobs_left(client))
    add_job(client, {b"job": HEADER, b"0": b"a", b"1": b"b", b"2": b"a", b"3": b"c"})

    shift.work()

    assert shift.task.batches == [["a"], ["b"], ["c"]]
    assert left == [1, 1, 1]
    assert lane_is_empty(client, INTERACTIVE)


def test_the_same_row_in_two_jobs_is_answered_in_both(client: redis.Redis, shift: Shift) -> None:
    row: Row = query("a")
    add_job(client, {b"job": HEADER, b"0": b"a"})
    add_job(client, {b"job": HEADER, b"0": b"a"}, lane=BULK)

    shift.work()

    assert reply_of(client, row) == result_of(row)
    assert lane_is_empty(client, INTERACTIVE)
    assert lane_is_empty(client, BULK)
