"""The benchmarks in a short form: they run on a real pool, are written down, and one that fails stops no other."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

PNG = b"\x89PNG\r\n"
SCALE = "0.001"


def test_a_short_run_is_written_down(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "nosuch", "bulk", "--scale", SCALE, "--output", str(tmp_path)]
    environ = {**os.environ, "HEADRACE_PROCESSES": "1", "HEADRACE_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environ)
    written = json.loads((tmp_path / "bench.json").read_text())
    assert done.returncode == 1
    assert list(written["failed"]) == ["nosuch"], done.stderr
    assert "failed nosuch: ModuleNotFoundError" in done.stdout
    assert [one["target"] for one in written["findings"]] == ["1", "1b", "1b", "2"]
    assert all(math.isfinite(one["measured"]) and one["measured"] > 0 for one in written["findings"])
    assert written["machine"]["cores"] >= 1
    assert "bulk embed through the queue" in (tmp_path / "bench.txt").read_text()
    assert (tmp_path / "bench.png").read_bytes().startswith(PNG)
