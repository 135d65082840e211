"""Shows what was found: a table with what limits the figures that miss their bound, the plot below it, and JSON."""

import json
import math
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.finding import Finding
from benchmarks.plot import bars, write_png
from benchmarks.runner import Outcome

WIDTH = 160
"""Columns of the table where no terminal tells its own."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run of the benchmarks."""

    machine: dict[str, str | int]
    scale: float
    outcomes: tuple[Outcome, ...]

    @property
    def findings(self) -> list[Finding]:
        """All findings in the order of their targets; those without one come last."""
        return sorted((one for outcome in self.outcomes for one in outcome.findings), key=_order)


def show(result: Result, console: Console) -> None:
    """Print the table, what limits the figures that miss their bound, what failed, and the plot."""
    table = Table("#", "what", "against", title="Headrace benchmarks", title_justify="left")
    for column in ("ours", "theirs", "measured", "bound"):
        table.add_column(column, justify="right")
    table.add_column("")
    for one in result.findings:
        cells = (one.target, one.what, one.against, one.ours, one.theirs, one.figure, one.wanted, _verdict(one))
        table.add_row(*map(escape, cells[:-1]), cells[-1])
    console.print(table)
    for one in result.findings:
        if one.kept is False:
            console.print(f"[bold]missed[/bold] {escape(': '.join(filter(None, (one.target, one.what, one.note))))}")
    for outcome in result.outcomes:
        if outcome.error:
            console.print(f"[bold]failed[/bold] {escape(f'{outcome.name}: {outcome.error}')}")
    for line in bars(result.findings):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    facts = (f"{name} {value}" for name, value in result.machine.items() if value != "")
    console.print(escape(", ".join(facts)), highlight=False)


def write(result: Result, folder: Path, name: str = "bench") -> None:
    """Write JSON, text (table and plot) and PNG into the folder, under a name."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "machine": result.machine,
        "scale": result.scale,
        "seconds": {outcome.name: round(outcome.seconds, 1) for outcome in result.outcomes},
        "failed": {outcome.name: outcome.error for outcome in result.outcomes if outcome.error},
        "findings": [{**asdict(one), "kept": one.kept} for one in result.findings],
    }
    (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    with (folder / f"{name}.txt").open("w", encoding="utf-8") as file:
        show(result, Console(file=file, width=WIDTH))
    try:
        write_png(result.findings, folder / f"{name}.png")
    except ImportError:
        print(f"no {name}.png: pip install 'headrace[bench]'", file=sys.stderr)


def _order(finding: Finding) -> tuple[float, str]:
    number = re.match(r"\d+", finding.target)
    return (float(number[0]) if number else math.inf, finding.target)


def _verdict(finding: Finding) -> str:
    return {True: "[green]kept[/green]", False: "[bold red]missed[/bold red]", None: ""}[finding.kept]
