"""The benchmarks in a short form: they run on a real pool and are written down; one that fails is told."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.runner import run_alone

PNG = b"\x89PNG\r\n"
SCALE = "0.001"


def test_a_short_run_is_written_down(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "bulk", "--scale", SCALE, "--output", str(tmp_path)]
    environ = {**os.environ, "HEADRACE_PROCESSES": "1", "HEADRACE_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environ)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "bulk.json").read_text())
    assert written["failed"] == {}
    assert [one["target"] for one in written["findings"]] == ["1", "1b", "1b", "2"]
    assert all(math.isfinite(one["measured"]) and one["measured"] > 0 for one in written["findings"])
    assert written["machine"]["cores"] >= 1
    assert "bulk embed through the queue" in (tmp_path / "bulk.txt").read_text()
    assert (tmp_path / "bulk.png").read_bytes().startswith(PNG)


def test_a_benchmark_that_fails_is_an_outcome() -> None:
    outcome = run_alone("nosuch")

    assert outcome.findings == ()
    assert "ModuleNotFoundError" in outcome.error


def test_an_unknown_name_is_one_line_before_anything_runs(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["cached", "nosuch", "--output", str(tmp_path / "out")])

    assert done.exit_code == 2
    assert "no benchmark is named nosuch: there are bulk, cached" in done.output
    assert not (tmp_path / "out").exists()
