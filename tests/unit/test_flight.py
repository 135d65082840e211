"""One call's rows in flight, against a server of dicts: what travels, what counts as an answer, what is healed."""

import logging

import pytest

from producer.flight import Flight
from producer.wire.keys import Lane
from producer.wire.messages import FailureReply
from producer.wire.signing import Seal
from tests.unit.fakes import RERANK_QUEUE, WIDE, FakeServer, ManualClock, failure, pair, passage, result_of
from tests.unit.flights import finish, flight, rows


def test_hits_are_not_enqueued(clock: ManualClock, server: FakeServer) -> None:
    for row in rows("a", "b"):
        server.put(row)
    one = flight(clock)

    server.run(one.start(rows("a", "b"), clock() + 5))

    assert server.enqueued == []
    assert one.pending == {}
    assert one.cached == set(one.replies) == {row.digest for row in rows("a", "b")}
    assert server.counts == [(2, 0)]


def test_only_missing_rows_travel_and_each_once(clock: ManualClock, server: FakeServer) -> None:
    server.put(passage("hit"))
    one = flight(clock)

    server.run(one.start(rows("new", "hit", "new", "other"), clock() + 5))

    assert server.sent == ["new", "other"]
    assert server.counts == [(1, 2)]
    finish(server, one)
    assert one.replies == {row.digest: result_of(row) for row in rows("new", "hit", "other")}
    assert one.cached == {passage("hit").digest}


def test_rows_of_an_earlier_start_are_neither_looked_up_nor_sent_again(clock: ManualClock, server: FakeServer) -> None:
    one = flight(clock)
    server.run(one.start(rows("a", "b"), clock() + 5))
    finish(server, one)

    server.run(one.start(rows("a", "c"), clock() + 5))
    server.run(one.start(rows("c"), clock() + 5))

    assert server.sent == ["a", "b", "c"]
    assert sum(server.lookups) == 2 + 2 + 1


def test_the_lane_and_the_time_budget_travel_with_the_rows(clock: ManualClock, server: FakeServer) -> None:
    server.run(flight(clock, Lane.BULK).start(rows("a"), clock() + 2.5))
    server.run(flight(clock, Lane.BULK).start(rows("b"), clock() + 0.0001))
    server.run(flight(clock, Lane.BULK).start(rows("c"), clock() + 1e9))

    assert server.lanes == {"bulk"}
    assert server.budgets_ms == [2500, 1, 24 * 3600 * 1000]


def test_many_rows_are_looked_up_by_the_thousand_and_enqueued_in_calls_of_200(
    clock: ManualClock, server: FakeServer
) -> None:
    server.run(flight(clock).start(rows(*(f"row {number}" for number in range(1001))), clock() + 5))

    assert server.lookups == [1000, 1]
    assert [len(call) for call in server.enqueued] == [200, 200, 200, 200, 200, 1]


def test_large_texts_are_enqueued_in_calls_of_about_a_megabyte(clock: ManualClock, server: FakeServer) -> None:
    server.run(flight(clock).start(rows(*(f"{number}" * 400_000 for number in range(5))), clock() + 5))

    assert [len(call) for call in server.enqueued] == [2, 2, 1]


def test_a_cache_that_cannot_be_read_is_a_warning_and_not_a_failure(
    clock: ManualClock, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.put(passage("a"))
    server.unreadable_lookups = 3
    one = flight(clock)

    with caplog.at_level(logging.WARNING, "headrace.producer"):
        server.run(one.start(rows("a"), clock() + 5))
        finish(server, one)

    assert server.sent[0] == "a"
    assert one.replies == {passage("a").digest: result_of(passage("a"))}
    assert "cache cannot be read" in caplog.text


@pytest.mark.parametrize("data", [b"garbage", b"\x81\xa1v\x02", b"\x82\xa1v\x01\xa6vector\xc4\x03abc"])
def test_a_corrupt_cached_value_is_a_miss(
    clock: ManualClock, server: FakeServer, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server.put(passage("a"), data=data)
    one = flight(clock)

    server.run(one.start(rows("a"), clock() + 5))
    finish(server, one)

    assert server.sent == ["a"]
    assert one.cached == set()
    assert one.replies[passage("a").digest] == result_of(passage("a"))
    assert "counts as a miss" in caplog.text


def test_a_failure_that_was_there_before_is_not_the_answer(clock: ManualClock) -> None:
    server = FakeServer(clock, work=lambda row: failure("model_failed", "again", at_ms=2))
    server.put(passage("a"), failure("model_failed", "again", at_ms=1))
    server.stray_hints = {passage("a").digest}
    server.rows_per_wait = 0
    one = flight(clock)

    server.run(one.start(rows("a"), clock() + 5))
    server.run(one.advance(clock() + 5))

    assert server.counts == [(0, 1)]
    assert set(one.pending) == {passage("a").digest}

    server.rows_per_wait = 1
    finish(server, one)

    reply = one.replies[passage("a").digest]
    assert isinstance(reply, FailureReply)
    assert reply.failed_at_ms == 2


def test_the_pairs_of_one_query_travel_together_with_it(clock: ManualClock, server: FakeServer) -> None:
    one = Flight(queue=RERANK_QUEUE, lane=Lane.INTERACTIVE, limit=WIDE, seal=Seal(), clock=clock)
    pairs = [pair("d1", "where?"), pair("d2", "where?")]

    server.run(one.start(pairs, clock() + 5))

    assert server.enqueued == [pairs]


def test_a_forgotten_row_may_be_asked_for_again(clock: ManualClock, server: FakeServer) -> None:
    server.put(passage("a"))
    one = flight(clock)
    server.run(one.start(rows("a"), clock() + 5))

    one.forget(passage("a").digest)

    assert (one.replies, one.cached) == ({}, set())
    server.run(one.start(rows("a"), clock() + 5))
    assert passage("a").digest in one.replies
