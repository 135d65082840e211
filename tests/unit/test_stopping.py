"""How processes are asked to stop: what counts as one request, and waiting on the flag."""

import signal
import threading

import pytest

from workers.stopping import SignalCount, StopFlag


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in a list that the test changes."""
    moment = [100.0]
    monkeypatch.setattr("workers.stopping.time.monotonic", lambda: moment[0])
    return moment


def test_a_sigterm_right_behind_another_is_the_same_request(now: list[float]) -> None:
    requests = SignalCount()

    for moment in (100.0, 100.2, 100.29):
        now[0] = moment
        requests.note(signal.SIGTERM)
    assert requests.count == 1

    now[0] = 100.31
    requests.note(signal.SIGTERM)
    assert requests.count == 2


def test_every_ctrl_c_counts(now: list[float]) -> None:
    requests = SignalCount()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGINT):
        requests.note(number)

    assert requests.count == 3


def test_waiting_ends_with_the_flag_or_the_time() -> None:
    flag = StopFlag()
    assert not flag.wait(0.01)

    threading.Timer(0.05, flag.set).start()
    assert flag.wait(60)
    assert flag.is_set()
