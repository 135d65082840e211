"""Calibration through the real `load`, and `headrace tune` with real processes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from producer import ConfigurationError
from tests.integration.harness import tuned
from tests.integration.harness.processes import ROOT, descendants, is_alive
from tests.integration.harness.waiting import wait_until
from workers import embed_worker
from workers.calibration import CANDIDATES_TOKENS
from workers.process import Load
from workers.settings import WorkerSettings
from workers.tuning import BUDGETS_TOKENS, tune

_LONGEST_S = 60.0
SETTINGS = WorkerSettings(embed_model="fake", pin=False)


def test_the_offline_model_is_calibrated_once(model_cache: Path) -> None:
    settings = WorkerSettings(embed_model="offline", cache_dir=str(model_cache), threads=1)
    first = embed_worker.load(settings).budget
    files = {path: path.stat().st_mtime_ns for path in (model_cache / "calibration").glob("*.json")}
    second = embed_worker.load(settings).budget

    assert first == second
    assert first.tokens in CANDIDATES_TOKENS
    assert first.tokens_per_s > 0
    assert {path: path.stat().st_mtime_ns for path in (model_cache / "calibration").glob("*.json")} == files != {}


def test_every_arrangement_is_measured_with_every_budget() -> None:
    steps: list[str] = []
    found = tune("embed", tuned.load_quick, SETTINGS, cpus=2, seconds=0.03, on_step=steps.append)

    measured = [(one.arrangement.processes, one.arrangement.threads, one.budget_tokens) for one in found.figures]
    assert measured == [
        (processes, threads, tokens) for processes, threads in ((1, 1), (1, 2), (2, 1)) for tokens in BUDGETS_TOKENS
    ]
    assert all(one.rows_per_s > 0 and one.short_row_ms >= 1 and one.memory_bytes > 10**6 for one in found.figures)
    assert steps
    assert found.left_out == []


def test_what_memory_is_too_small_for_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.tuning.available_bytes", lambda: 1)
    found = tune("embed", tuned.load_quick, SETTINGS, cpus=2, seconds=0.01, on_step=lambda _: None)

    assert {str(one.arrangement) for one in found.figures} == {"1 x 1"}
    assert [str(one) for one in found.left_out] == ["1 x 2", "2 x 1"]


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (tuned.load_nothing, "no model is named 'fake'"),
        (tuned.load_and_die, "ended with code 9"),
        (tuned.load_what_fails, "the model failed: RuntimeError: a kernel failed"),
    ],
)
def test_a_process_that_fails_is_one_error(load: Load, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        tune("embed", load, SETTINGS, cpus=1, seconds=0.01, on_step=lambda _: None)


def start(model_cache: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start `headrace tune embed` on one CPU, where there is one arrangement."""
    cpu = max(os.sched_getaffinity(0))
    return subprocess.Popen(
        [sys.executable, "cli.py", "tune", "embed", "--cache-dir", str(model_cache), *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),  # noqa: PLW1509 - one system call
    )


def test_the_command_prints_figures_and_settings(model_cache: Path) -> None:
    command = start(model_cache, "--model", "offline", "--seconds", "0.03", "--json")
    stdout, stderr = command.communicate(timeout=_LONGEST_S)
    assert command.returncode == 0, stderr
    printed = json.loads(stdout)

    assert (printed["task"], printed["model"], printed["cpus"]) == ("embed", "offline", 1)
    assert [figure["batch_tokens"] for figure in printed["figures"]] == list(BUDGETS_TOKENS)
    assert printed["best"] in printed["figures"]
    assert printed["settings"] == {
        "HEADRACE_PROCESSES": 1,
        "HEADRACE_THREADS": 1,
        "HEADRACE_BATCH_TOKENS": printed["best"]["batch_tokens"],
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_to_stop_ends_all_processes_at_once(model_cache: Path, number: signal.Signals) -> None:
    command = start(model_cache, "--model", "offline", "--seconds", "600")
    children = wait_until(lambda: descendants(command.pid), 30, what="a process of the measurement")
    os.killpg(command.pid, number)  # the whole group, as a terminal does
    _, stderr = command.communicate(timeout=_LONGEST_S)

    assert command.returncode == 130
    assert stderr.splitlines()[-1] == "headrace: interrupted"
    assert "Traceback" not in stderr
    wait_until(lambda: not any(map(is_alive, children)), what="the end of the processes")


def test_an_unknown_model_is_one_line(model_cache: Path) -> None:
    command = start(model_cache, "--model", "no-such-model")
    _, stderr = command.communicate(timeout=_LONGEST_S)

    assert command.returncode == 1
    assert "no model is named 'no-such-model'" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr
