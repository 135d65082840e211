"""What a worker takes in hand, and when: bulk beside the model, interactive rows at the last moment, and never much."""

import threading
from collections.abc import Sequence

import pytest
import redis

from producer.wire.keys import Lane
from producer.wire.messages import Row
from tests.unit.engine import OneShift, SmallTask, add_job, send
from tests.unit.fakes import EMBED_QUEUE, passage, query
from workers.batching import LookAhead
from workers.intake import Intake
from workers.ledger import Ledger
from workers.outlet import Outlet
from workers.progress import Progress
from workers.reader import LOOK_AHEAD_ROWS, READ_ROWS, Reader
from workers.tasks import Measure

INTERACTIVE, BULK = Lane.INTERACTIVE, Lane.BULK


class Desk:
    """A reader with all that it needs, on a Redis in memory; rows of `row_tokens` tokens each."""

    def __init__(self, client: redis.Redis, *, budget_tokens: int = 1024, row_tokens: int = 1) -> None:
        self.task = SmallTask()
        self.task.row_tokens = row_tokens
        self.streams = OneShift(client, EMBED_QUEUE, "worker", threading.Event())
        self.streams.prepare()
        ledger, progress = Ledger(), Progress()
        self.vitals = progress.vitals
        outlet = Outlet(streams=self.streams, ledger=ledger, progress=progress, reply_ttl_s=60)
        intake = Intake(
            task=self.task, streams=self.streams, outlet=outlet, ledger=ledger, progress=progress, max_text_bytes=1000
        )
        self.look_ahead = LookAhead(budget_tokens)
        self.reader = Reader(streams=self.streams, intake=intake, look_ahead=self.look_ahead, rows_per_job=1)

    def held(self) -> tuple[int, int]:
        """How many interactive and bulk rows are in hand."""
        return self.look_ahead.count(INTERACTIVE), self.look_ahead.count(BULK)


@pytest.fixture
def desk(client: redis.Redis) -> Desk:
    return Desk(client)


def send_some(client: redis.Redis, count: int, lane: Lane) -> None:
    make = query if lane is INTERACTIVE else passage
    send(client, *(make(f"{lane} {number}") for number in range(count)), lane=lane)


def test_while_the_model_runs_bulk_rows_are_taken_in_and_interactive_ones_left_to_whoever_is_free(
    client: redis.Redis, desk: Desk
) -> None:
    send_some(client, 3, BULK)
    send_some(client, 3, INTERACTIVE)

    with desk.reader.ahead(True):
        pass

    assert desk.held() == (0, READ_ROWS)
    assert set(desk.reader.jobs_wanted(read_ahead=True)) == {INTERACTIVE}


def test_a_backlog_of_interactive_rows_is_read_ahead_too(client: redis.Redis, desk: Desk) -> None:
    send_some(client, 200, INTERACTIVE)
    asked = desk.reader.jobs_wanted(read_ahead=False)
    desk.reader.admit(desk.streams.read_new(asked), asked)
    before, _ = desk.held()
    assert before == asked[INTERACTIVE]
    desk.reader.next_batch()

    with desk.reader.ahead(True):
        pass

    assert desk.held()[0] > 0


def test_a_short_batch_reads_nothing_beside_it(client: redis.Redis, desk: Desk) -> None:
    send_some(client, 3, BULK)

    with desk.reader.ahead(False):
        pass

    assert desk.held() == (0, 0)
    assert set(desk.reader.jobs_wanted(read_ahead=False)) == set(Lane)


def test_what_the_reading_beside_raises_is_raised_at_the_end_of_the_batch(client: redis.Redis, desk: Desk) -> None:
    desk.streams.fail_once("read_new", redis.ConnectionError("gone"))

    with pytest.raises(redis.ConnectionError), desk.reader.ahead(True):
        pass


def test_trouble_of_the_batch_itself_is_told_rather_than_that_of_the_reading(client: redis.Redis, desk: Desk) -> None:
    desk.streams.fail_once("read_new", redis.ConnectionError("gone"))

    with pytest.raises(ValueError, match="the batch"), desk.reader.ahead(True):
        raise ValueError("the batch")


def test_a_tokenizer_that_hangs_beside_the_model_is_seen(
    client: redis.Redis, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_some(client, 1, BULK)
    seen: list[float] = []

    def measure(rows: Sequence[Row]) -> list[Measure]:
        seen.append(desk.vitals.working_s())
        return [Measure(tokens=1, truncated=False) for _ in rows]

    monkeypatch.setattr(desk.task, "measure", measure)

    with desk.reader.ahead(True):
        pass

    assert len(seen) == 1
    assert seen[0] > 0.0
    assert desk.vitals.working_s() == 0.0


def test_no_more_rows_are_held_than_a_bound_however_short(client: redis.Redis, desk: Desk) -> None:
    send_some(client, 300, BULK)
    for _ in range(10):
        with desk.reader.ahead(True):
            pass

    assert desk.held() == (0, LOOK_AHEAD_ROWS)


def test_what_is_being_read_beside_the_model_counts_as_held(client: redis.Redis, desk: Desk) -> None:
    """The reading at the end of the batch must not ask for the same room once more."""
    send_some(client, 600, INTERACTIVE)
    for _ in range(8):
        with desk.reader.ahead(True):
            jobs = desk.reader.jobs_wanted(read_ahead=True)
            entries = desk.streams.read_new(jobs)
        desk.reader.admit(entries, jobs)

    assert desk.held() == (LOOK_AHEAD_ROWS, 0)
    desk.look_ahead.clear()
    assert desk.reader.room()[INTERACTIVE] == LOOK_AHEAD_ROWS, "nothing is being read any more"


def test_an_interactive_row_is_asked_for_although_a_backlog_may_come(client: redis.Redis, desk: Desk) -> None:
    """If none comes, a row that was enqueued meanwhile would wait for one more batch of bulk rows."""
    send_some(client, 2 * LOOK_AHEAD_ROWS, INTERACTIVE)
    for _ in range(6):
        jobs = desk.reader.jobs_wanted(read_ahead=False)
        desk.reader.admit(desk.streams.read_new(jobs), jobs)
        desk.look_ahead.clear()

    with desk.reader.ahead(True):
        assert desk.reader.jobs_wanted(read_ahead=True) == {INTERACTIVE: 1}


def test_no_more_tokens_are_held_than_a_few_batches(client: redis.Redis) -> None:
    """Rows that one worker holds, and has not begun, are rows that an idle one cannot have."""
    desk = Desk(client, budget_tokens=100, row_tokens=100)
    send_some(client, 300, BULK)
    for _ in range(10):
        with desk.reader.ahead(True):
            pass

    assert desk.look_ahead.tokens(BULK) <= 700, "four batches, and what the first guess of a row's length brings"


def test_a_row_longer_than_everything_is_still_taken(client: redis.Redis) -> None:
    desk = Desk(client, budget_tokens=10, row_tokens=5000)
    send_some(client, 3, BULK)

    for _ in range(3):
        assert len(desk.reader.next_batch()) == 1
    assert desk.held() == (0, 0)


def test_a_reading_takes_twice_as_many_while_the_lane_gives_all_that_is_asked(client: redis.Redis, desk: Desk) -> None:
    send_some(client, 3 * READ_ROWS + 1, BULK)
    asked = []
    for _ in range(4):
        jobs = desk.reader.jobs_wanted(read_ahead=False)
        asked.append(jobs[BULK])
        desk.reader.admit(desk.streams.read_new(jobs), jobs)
        desk.look_ahead.clear()

    assert asked == [READ_ROWS, 2 * READ_ROWS, 4 * READ_ROWS, READ_ROWS]


def test_large_entries_are_read_few_at_a_time(client: redis.Redis, desk: Desk) -> None:
    for number in range(READ_ROWS):
        add_job(client, {b"job": b"garbage", b"0": b"x" * 200_000 + b"%d" % number}, lane=BULK)
    jobs = desk.reader.jobs_wanted(read_ahead=False)

    desk.reader.admit(desk.streams.read_new(jobs), jobs)

    assert desk.reader.jobs_wanted(read_ahead=False)[BULK] == READ_ROWS
