"""The file of measured speeds: kept as a whole, shared by processes that start together, and never in the way."""

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from workers import kept_speeds
from workers.budget import Speed
from workers.kept_speeds import KeptSpeeds

KEY: dict[str, str | int | list[int]] = {"weights_sha256": "w", "threads": 2}
SPEEDS = [Speed(budget_tokens=256, tokens_per_s=3999.5), Speed(budget_tokens=512, tokens_per_s=4100.0)]


class Meter:
    """Measures the same each time, and counts."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self._before = before
        self.times = 0

    def __call__(self) -> Sequence[Speed]:
        self.times += 1
        self._before()
        return SPEEDS


def test_what_is_measured_is_kept(tmp_path: Path) -> None:
    meter = Meter()

    assert [KeptSpeeds(tmp_path / "new", KEY).get(meter) for _ in range(3)] == [SPEEDS] * 3
    assert meter.times == 1
    assert sorted(path.suffix for path in (tmp_path / "new").iterdir()) == ["", ".json"], "nothing unfinished is left"


def test_another_key_is_another_file(tmp_path: Path) -> None:
    meter = Meter()
    for threads in (1, 2, 1):
        KeptSpeeds(tmp_path, {**KEY, "threads": threads}).get(meter)

    assert meter.times == 2


def spoil(**changes: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return write


def speeds(*entries: Any) -> Callable[[Path], None]:
    return spoil(speeds=list(entries))


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_text(""),
        lambda path: path.write_text(path.read_text()[:-20]),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text("null"),
        spoil(format=2),
        spoil(format=None),
        spoil(key={**KEY, "threads": 3}),
        spoil(speeds=None),
        spoil(speeds={}),
        speeds(),
        speeds(None),
        speeds({}),
        speeds({"budget_tokens": 0, "tokens_per_s": 1.0}),
        speeds({"budget_tokens": 256.5, "tokens_per_s": 1.0}),
        speeds({"budget_tokens": 256, "tokens_per_s": 0.0}),
        speeds({"budget_tokens": 256, "tokens_per_s": float("nan")}),
        speeds({"budget_tokens": 256, "tokens_per_s": float("inf")}),
        speeds({"budget_tokens": 256, "tokens_per_s": "fast"}),
    ],
)
def test_a_file_that_is_not_ours_is_measured_again_and_replaced(tmp_path: Path, write: Callable[[Path], None]) -> None:
    kept, meter = KeptSpeeds(tmp_path, KEY), Meter()
    kept.get(meter)
    write(kept.path)

    assert kept.get(meter) == SPEEDS
    assert meter.times == 2
    assert kept.read() == SPEEDS


def test_a_folder_that_cannot_be_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    kept, meter = KeptSpeeds(tmp_path / "file" / "folder", KEY), Meter()

    assert kept.get(meter) == SPEEDS
    assert meter.times == 1
    assert "cannot be kept" in caplog.text


def test_a_file_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept, meter = KeptSpeeds(tmp_path, KEY), Meter()
    kept.path.mkdir()  # root may write what is only forbidden

    assert kept.get(meter) == SPEEDS
    assert meter.times == 1, "what was measured counts"
    assert "cannot be kept" in caplog.text


def test_processes_that_start_together_measure_once(tmp_path: Path) -> None:
    meter = Meter(lambda: time.sleep(0.1))
    found: list[list[Speed]] = []
    threads = [
        threading.Thread(target=lambda: found.append(KeptSpeeds(tmp_path, KEY).get(meter)), daemon=True)
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert found == [SPEEDS] * 4
    assert meter.times == 1


def test_who_does_not_let_go_of_the_lock_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kept_speeds, "_LONGEST_WAIT_S", 0.0)
    held, release = threading.Event(), threading.Event()

    def hang() -> None:
        held.set()
        release.wait(10)

    other = threading.Thread(target=lambda: KeptSpeeds(tmp_path, KEY).get(Meter(hang)), daemon=True)
    other.start()
    held.wait(10)

    assert KeptSpeeds(tmp_path, KEY).get(Meter()) == SPEEDS
    assert "does not let go" in caplog.text
    release.set()
    other.join(10)
