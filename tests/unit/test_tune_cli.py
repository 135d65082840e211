"""What `headrace tune` prints of what was measured: the table, the best, and the settings that make it so."""

import json
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli import main
from console import tune as command
from workers.arrangements import Arrangement, Figure
from workers.tuning import Tuning

ONE, TWO = Arrangement(processes=1, threads=2), Arrangement(processes=2, threads=1)


def figure(arrangement: Arrangement, budget_tokens: int, rows_per_s: float) -> Figure:
    return Figure(
        arrangement=arrangement,
        budget_tokens=budget_tokens,
        rows_per_s=rows_per_s,
        short_row_ms=6.25,
        memory_bytes=300_000_000,
    )


@pytest.fixture(autouse=True)
def sigterm() -> Iterator[None]:
    """The command takes SIGTERM for itself."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def tuned(monkeypatch: pytest.MonkeyPatch, found: Tuning, *arguments: str) -> Result:
    """Run the command with its measuring replaced."""
    asked: dict[str, Any] = {}
    monkeypatch.setattr(command, "tune", lambda *_, **given: asked.update(given) or found)
    monkeypatch.setattr(command, "cpu_limit", lambda: 2)
    done = CliRunner().invoke(main, ["tune", *arguments], env={"COLUMNS": "120", "HEADRACE_EMBED_MODEL": "a [b]"})
    assert done.exit_code != 0 or asked["cpus"] == 2
    return done


def test_the_table_and_the_settings_of_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Tuning(
        figures=[figure(ONE, 256, 60.0), figure(TWO, 256, 70.0), figure(TWO, 512, 80.0)],
        left_out=[Arrangement(processes=3, threads=1)],
    )
    printed = tuned(monkeypatch, found, "embed").stdout

    assert "embed with a [b] on 2 CPUs" in printed
    (best,) = (line for line in printed.splitlines() if "best" in line)
    assert [cell.strip() for cell in best.split("│")[1:7]] == ["2", "1", "512", "80.0", "6.2 ms", "300.0 MB"]
    assert "headrace worker embed --model 'a [b]' --processes 2 --threads 1 --batch-tokens 512" in printed
    assert "HEADRACE_PROCESSES=2 HEADRACE_THREADS=1 HEADRACE_BATCH_TOKENS=512" in printed
    assert "3 x 1 (processes x threads) was left out" in printed


def test_a_model_that_runs_row_by_row_gets_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = tuned(monkeypatch, Tuning(figures=[figure(ONE, 1, 60.0)]), "rerank", "--model", "m").stdout

    assert "row by row" in printed
    assert printed.splitlines()[-1].split() == ["HEADRACE_PROCESSES=1", "HEADRACE_THREADS=2"]


def test_one_json_object(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = json.loads(tuned(monkeypatch, Tuning(figures=[figure(ONE, 256, 60.0)]), "embed", "--json").stdout)
    expected = {
        "processes": 1,
        "threads": 2,
        "batch_tokens": 256,
        "rows_per_s": 60.0,
        "short_row_ms": 6.25,
        "memory_bytes": 300_000_000,
    }

    assert printed["figures"] == [expected]
    assert printed["best"] == expected
    assert printed["settings"] == {"HEADRACE_PROCESSES": 1, "HEADRACE_THREADS": 2, "HEADRACE_BATCH_TOKENS": 256}


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "soon"])
def test_a_time_that_cannot_be_is_one_line(monkeypatch: pytest.MonkeyPatch, seconds: str) -> None:
    done = tuned(monkeypatch, Tuning(), "embed", "--seconds", seconds)

    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
