"""Rows in flight when things go wrong: full lanes, lost hints, lost rows, re-checks and healing."""

from dataclasses import replace

import pytest

from producer.effects import Enqueue, Lookup, Steps, Wait
from producer.errors import QueueFull, RedisUnavailable
from producer.state import LaneState, WorkerState
from producer.wire.keys import Lane
from producer.wire.messages import Reply, Row
from tests.unit.fakes import EMBED_QUEUE, FakeServer, ManualClock, heartbeat, passage, queue_state, result_of
from tests.unit.flights import finish, flight, rows


def test_a_full_interactive_lane_raises_with_its_numbers(clock: ManualClock, server: FakeServer) -> None:
    server.full_calls = 1

    with pytest.raises(QueueFull) as caught:
        server.run(flight(clock).start(rows("a"), clock() + 5))

    assert "holds 7 rows (nobody knows how long they take), the limit is 1000 rows" in str(caught.value)
    assert f"embed:{EMBED_QUEUE.tag}" in str(caught.value)
    assert caught.value.estimated_wait_s is None


def test_a_full_lane_tells_how_long_the_pool_needs_for_it(clock: ManualClock, server: FakeServer) -> None:
    lane = LaneState(waiting=60, in_flight=0, rows=600, size_bytes=0, oldest_age_ms=0, dead=0)
    workers = tuple(
        WorkerState(name=f"w/{n}", heartbeat=heartbeat(rows_per_s=20.0), alive=n < 2, progress_age_ms=0)
        for n in range(3)
    )
    server.full_calls = 1
    server.state = replace(queue_state(EMBED_QUEUE), lanes=dict.fromkeys(Lane, lane), workers=workers)

    with pytest.raises(QueueFull, match="they take about 15") as caught:
        server.run(flight(clock).start(rows("a"), clock() + 5))
    assert caught.value.estimated_wait_s == 15.0


def test_a_full_lane_is_told_even_if_the_wait_cannot_be_estimated(clock: ManualClock, server: FakeServer) -> None:
    server.full_calls = 1
    server.state = RedisUnavailable("Redis cannot be reached")

    with pytest.raises(QueueFull) as caught:
        server.run(flight(clock).start(rows("a"), clock() + 5))
    assert caught.value.estimated_wait_s is None


def test_a_full_bulk_lane_waits_and_goes_on(clock: ManualClock, server: FakeServer) -> None:
    server.full_calls = 3
    one = flight(clock, Lane.BULK)

    server.run(one.start(rows("a"), clock() + 60))
    finish(server, one)

    assert server.sent == ["a"]
    assert one.replies[passage("a").digest] == result_of(passage("a"))


def test_rows_that_found_the_bulk_lane_full_are_sent_while_others_make_progress(
    clock: ManualClock, server: FakeServer
) -> None:
    one = flight(clock, Lane.BULK)
    many = rows(*(f"row {number}" for number in range(300)))
    server.run(one.start(many[:200], clock() + 60))
    server.full_calls = 1
    server.run(one.start(many[200:], clock() + 60))
    server.rows_per_wait = 1

    def slowly(row: Row) -> Reply:
        clock.advance(0.5)
        return result_of(row)

    server.work = slowly

    for _ in range(4):
        server.run(one.advance(clock() + 60))

    assert [len(call) for call in server.enqueued] == [200, 100]


def test_hints_are_waited_for_and_only_hinted_rows_are_looked_up(clock: ManualClock, server: FakeServer) -> None:
    server.rows_per_wait = 2
    one = flight(clock)
    server.run(one.start(rows("a", "b", "c"), clock() + 5))

    server.run(one.advance(clock() + 5))

    assert server.lookups == [3, 2]
    assert set(one.pending) == {passage("c").digest}


def test_hints_for_rows_of_others_cost_no_look_up(clock: ManualClock, server: FakeServer) -> None:
    server.rows_per_wait = 0
    server.stray_hints = {b"x" * 16}
    one = flight(clock)
    server.run(one.start(rows("a"), clock() + 5))

    server.run(one.advance(clock() + 5))

    assert server.lookups == [1]


def test_lost_hints_still_end_in_results(clock: ManualClock, server: FakeServer) -> None:
    server.lose_hints = True
    one = flight(clock)

    server.run(one.start(rows("a", "b"), clock() + 60))
    finish(server, one)

    assert set(one.replies) == {row.digest for row in rows("a", "b")}
    assert len(server.enqueued) == 1


def test_re_checks_come_soon_at_first_then_seldom_and_soon_again_after_progress(
    clock: ManualClock, server: FakeServer
) -> None:
    server.rows_per_wait = 0
    one = flight(clock)
    server.run(one.start(rows("a", "b"), clock() + 60))

    for _ in range(7):
        server.run(one.advance(clock() + 60))
    assert server.waits_s == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]

    server.rows_per_wait = 1
    server.run(one.advance(clock() + 60))
    server.rows_per_wait = 0
    server.run(one.advance(clock() + 60))
    assert server.waits_s[7:] == [2.0, 0.1]


def test_a_wait_is_never_longer_than_what_is_left(clock: ManualClock, server: FakeServer) -> None:
    server.rows_per_wait = 0
    one = flight(clock)
    server.run(one.start(rows("a"), clock() + 60))

    server.run(one.advance(clock() + 0.03))

    assert server.waits_s == pytest.approx([0.03])


def test_rows_that_are_lost_altogether_are_enqueued_again(clock: ManualClock, server: FakeServer) -> None:
    server.lose_next_rows = 2
    one = flight(clock)

    server.run(one.start(rows("a", "b"), clock() + 60))
    finish(server, one)

    assert server.sent == ["a", "b", "a", "b"]
    assert set(one.replies) == {row.digest for row in rows("a", "b")}


def test_only_what_is_still_missing_is_enqueued_again_and_not_before_a_second(
    clock: ManualClock, server: FakeServer
) -> None:
    server.lose_next_rows = 1
    one = flight(clock)
    started = clock()

    server.run(one.start(rows("lost", "fine"), clock() + 60))
    server.run(one.advance(clock() + 60))
    while len(server.enqueued) == 1:
        assert clock() - started < 3
        server.run(one.advance(clock() + 60))

    assert server.sent == ["lost", "fine", "lost"]
    assert clock() - started >= 1


@pytest.mark.parametrize("error", [RedisUnavailable("away"), QueueFull("full")])
def test_healing_that_fails_is_a_warning_and_is_tried_again(
    clock: ManualClock, error: RedisUnavailable | QueueFull, caplog: pytest.LogCaptureFixture
) -> None:
    one = flight(clock)
    steps = Steps(one.start(rows("a"), clock() + 60))
    tries = 0
    while tries < 3:
        match steps.effect:
            case None:
                steps = Steps(one.advance(clock() + 60))
            case Enqueue() if tries:
                tries += 1
                steps.throw(error)
            case Enqueue():
                tries = 1
                steps.send((1, 0, 1, 1))
            case Lookup(keys):
                steps.send([None] * len(keys))
            case Wait(timeout_s):
                clock.advance(timeout_s)
                steps.send(set())
            case _:
                steps.send(None)

    assert set(one.pending) == {passage("a").digest}
    assert "still waiting for 1 rows" in caplog.text


def test_a_bulk_run_goes_on_when_redis_was_away_for_a_moment(clock: ManualClock, server: FakeServer) -> None:
    one = flight(clock, Lane.BULK)
    server.run(one.start(rows("a"), clock() + 60))

    server.refused_calls = 2
    server.run(one.start(rows("b"), clock() + 60))
    finish(server, one)

    assert server.sent[:2] == ["a", "b"]
    assert one.replies.keys() == {row.digest for row in rows("a", "b")}


@pytest.mark.parametrize("lane", Lane)
def test_a_redis_that_refuses_from_the_first_is_told_at_once(
    clock: ManualClock, server: FakeServer, lane: Lane
) -> None:
    server.refused_calls = 1

    with pytest.raises(RedisUnavailable):
        server.run(flight(clock, lane).start(rows("a"), clock() + 60))
