"""`python -m benchmarks [NAME…]`: runs the benchmarks, prints their findings, and writes them down."""

import importlib
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.finding import Finding

NAMES: tuple[str, ...] = ()
"""Modules of this package, each with `run() -> list[Finding]`, in the order of the table."""

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run the benchmarks that are named, or all."""
    findings: list[Finding] = []
    for name in sys.argv[1:] or NAMES:
        started = time.monotonic()
        found = importlib.import_module(f"benchmarks.{name}").run()
        findings += found
        for finding in found:
            print(finding)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "results.json").write_text(json.dumps([asdict(finding) for finding in findings], indent=2) + "\n")


if __name__ == "__main__":
    main()
