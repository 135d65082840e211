"""How a pool decides after a process has ended: the next at once, after a pause, or never."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.fakes import heartbeat
from workers import names
from workers.pool import Pool, _Slot
from workers.process import Place
from workers.settings import WorkerSettings
from workers.stopping import EXIT_CONFIGURATION
from workers.vitals import Vitals


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool("embed", lambda _settings: None, WorkerSettings(embed_model="offline"))  # type: ignore[arg-type, return-value]
    yield pool
    pool._woken.close()
    pool._waker.close()


@pytest.fixture
def slot() -> _Slot:
    return _Slot(Place(number=0, name="host/0", vitals=Vitals()))


def end(pool: Pool, slot: _Slot, code: int, *, served: bool = False, lived_s: float = 1.0) -> float:
    """Let the process of a slot end; return the pause until the next one, 0 if it starts at once."""
    slot.place = Place(number=0, name="host/0", vitals=Vitals())
    if served:
        slot.place.vitals.note_served()
    now = time.monotonic()
    slot.started_at, slot.start_after = now - lived_s, float("-inf")
    pool._note_end(slot, code, now)
    return max(0.0, slot.start_after - now)


def test_pauses_double_with_jitter_until_the_pool_gives_up(pool: Pool, slot: _Slot) -> None:
    pauses = [end(pool, slot, 1) for _ in range(4)]

    for number, pause_s in enumerate(pauses):
        assert 0.8 * 0.5 * 2**number <= pause_s <= 1.2 * 0.5 * 2**number
    assert len({round(pause_s / 2**number, 6) for number, pause_s in enumerate(pauses)}) > 1, "jitter"
    assert pool._failed_code == 0
    end(pool, slot, 7)
    assert pool._failed_code == 7


def test_a_signal_is_no_exit_code(pool: Pool, slot: _Slot) -> None:
    for _ in range(5):
        end(pool, slot, -9)
    assert pool._failed_code == 1


def test_a_configuration_that_cannot_work_ends_the_pool_at_once(pool: Pool, slot: _Slot) -> None:
    end(pool, slot, EXIT_CONFIGURATION)
    assert pool._failed_code == EXIT_CONFIGURATION


def test_processes_that_served_are_replaced_without_end_and_without_long_pauses(pool: Pool, slot: _Slot) -> None:
    pauses = [end(pool, slot, -9, served=True) for _ in range(2000)]

    assert pool._failed_code == 0
    assert pauses[0] < 0.7
    assert max(pauses) <= 4.8


def test_after_a_steady_life_a_crash_is_the_first_again(pool: Pool, slot: _Slot) -> None:
    for _ in range(4):
        end(pool, slot, -9, served=True)
    assert end(pool, slot, -9, served=True, lived_s=31.0) < 0.7


def test_one_that_served_makes_failed_starts_forgotten(pool: Pool, slot: _Slot) -> None:
    for _ in range(3):
        for _ in range(4):
            end(pool, slot, 1)
        end(pool, slot, -9, served=True)
    assert pool._failed_code == 0


def test_a_process_that_ended_in_order_is_replaced_at_once(pool: Pool, slot: _Slot) -> None:
    assert end(pool, slot, 0, served=True) == 0.0


def test_one_that_is_too_large_before_it_has_done_anything_is_a_failed_start(pool: Pool, slot: _Slot) -> None:
    for _ in range(5):
        slot.end_by = time.monotonic() + 30
        end(pool, slot, 0, served=True)
    assert pool._failed_code == 1


def test_a_process_that_cannot_even_be_made_is_a_failed_start(
    pool: Pool, slot: _Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unborn:
        def start(self) -> None:
            raise OSError("cannot allocate memory")

    monkeypatch.setattr(pool._context, "Process", lambda **_: Unborn())
    pool._start(slot, time.monotonic())

    assert slot.process is None
    assert slot.failures == 1


class Told:
    """Stands for a process that ends when it is told to, and counts how often."""

    def __init__(self) -> None:
        self.terminated = 0
        self.alive = True

    def terminate(self) -> None:
        self.terminated += 1
        self.alive = False

    def is_alive(self) -> bool:
        return self.alive

    def join(self) -> None:
        self.alive = False


def test_a_process_that_is_ending_already_is_not_told_again(pool: Pool, slot: _Slot) -> None:
    """A second SIGTERM would end its batch at once."""
    ending, other = Told(), _Slot(Place(number=1, name="host/1", vitals=Vitals()))
    slot.end_by, ending.alive = time.monotonic() + 30, False
    busy = Told()
    process: Any = ending
    slot.process, other.process = process, busy  # type: ignore[assignment]
    pool._slots = [slot, other]

    pool._stop()

    assert (ending.terminated, busy.terminated) == (0, 1)


@pytest.mark.parametrize(("silent_s", "live"), [(1, True), (60, True), (601, False)])
def test_a_name_is_taken_while_its_process_runs_however_silent(
    silent_s: int, live: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from producer.wire.codec import encode_message

    beat = encode_message(heartbeat(beat_at_ms=1_000_000))
    now_ms = 1_000_000 + silent_s * 1000
    monkeypatch.setattr(names, "_runs", lambda pid: True)
    assert names._is_live(beat, now_ms) is live
    monkeypatch.setattr(names, "_runs", lambda pid: False)
    assert not names._is_live(beat, now_ms)
