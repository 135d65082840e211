"""The state of a queue: how long a new row waits for what is before it."""

from dataclasses import replace

import pytest
from redis.exceptions import NoPermissionError

from producer.state import LaneState, QueueState, WorkerState, parse
from producer.wire.keys import Lane
from tests.unit.fakes import EMBED_QUEUE, heartbeat, queue_state


def state(*, rates: tuple[float, ...], **counters: int) -> QueueState:
    """100 interactive and 900 bulk rows, and a worker for each rate."""
    lanes = {
        lane: LaneState(waiting=rows, in_flight=0, rows=rows, size_bytes=0, oldest_age_ms=0, dead=0)
        for lane, rows in ((Lane.INTERACTIVE, 100), (Lane.BULK, 900))
    }
    workers = tuple(
        WorkerState(name=f"w/{number}", heartbeat=heartbeat(rows_per_s=rate), alive=True, progress_age_ms=0)
        for number, rate in enumerate(rates)
    )
    return replace(queue_state(EMBED_QUEUE), lanes=lanes, workers=workers, counters=counters)


def test_interactive_rows_go_first() -> None:
    busy = state(rates=(5.0, 15.0))

    assert busy.estimated_wait_s(Lane.INTERACTIVE) == 5.0
    assert busy.estimated_wait_s(Lane.BULK) == 50.0


@pytest.mark.parametrize("lately", [0.0, 2.0, 500.0])
def test_what_workers_do_while_they_are_busy_counts_and_not_how_busy_they_were(lately: float) -> None:
    assert state(rates=(lately, lately), rows=1000, busy_ms=100_000).estimated_wait_s(Lane.INTERACTIVE) == 5.0


def test_a_state_without_the_servers_time_is_an_error() -> None:
    with pytest.raises(NoPermissionError):
        parse(EMBED_QUEUE, [NoPermissionError("no TIME")] + [None] * 11)


@pytest.mark.parametrize("counters", [{}, {"rows": 1000, "busy_ms": 100_000}])
def test_without_workers_or_measurements_nobody_can_tell(counters: dict[str, int]) -> None:
    assert state(rates=(), **counters).estimated_wait_s(Lane.INTERACTIVE) is None
    assert state(rates=(0.0,)).estimated_wait_s(Lane.INTERACTIVE) is None
