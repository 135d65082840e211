"""Runs each benchmark in a process of its own, so that none measures what another has left behind or dies with it."""

import importlib
import inspect
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.finding import Finding

_LONGEST_S = 300.0
_RUN = re.compile(r"^def run\(.*\) -> list\[Finding\]:", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one benchmark: its findings, or why there are none."""

    name: str
    seconds: float
    findings: tuple[Finding, ...] = ()
    error: str = ""


def names() -> list[str]:
    """The modules of this package that measure something: those with `run() -> list[Finding]`."""
    folder = Path(__file__).parent
    return sorted(path.stem for path in folder.glob("*.py") if _RUN.search(path.read_text("utf-8")))


def run_alone(name: str, scale: float = 1.0, *, longest_s: float = _LONGEST_S) -> Outcome:
    """Run `benchmarks.<name>` (or a module by its full name) in a new process."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        target = Path(folder) / "findings.json"
        found: dict[str, Any] = {}
        command = [sys.executable, "-m", "benchmarks.runner", name, str(scale), str(target)]
        try:
            code = subprocess.run(command, timeout=longest_s, check=False).returncode
            found |= json.loads(target.read_text()) if target.exists() else {"error": f"ended with exit code {code}"}
        except subprocess.TimeoutExpired:
            found |= {"error": f"took longer than {longest_s:.0f} s"}
    return Outcome(
        name=name,
        seconds=time.monotonic() - started,
        findings=tuple(Finding(**finding) for finding in found.get("findings", ())),
        error=found.get("error", ""),
    )


def _main(name: str, scale: str, target: str) -> None:
    """Be that process: leave the findings, or the error, in the target; the traceback goes to standard error."""
    try:
        run: Callable[..., list[Finding]] = importlib.import_module(name if "." in name else f"benchmarks.{name}").run
        sizes = {"scale": float(scale)} if "scale" in inspect.signature(run).parameters else {}
        found: dict[str, object] = {"findings": [asdict(finding) for finding in run(**sizes)]}
    except Exception as error:
        found = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
        raise
    finally:
        Path(target).write_text(json.dumps(found))


if __name__ == "__main__":
    _main(*sys.argv[1:])
