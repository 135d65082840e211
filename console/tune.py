"""`headrace tune`: which processes, threads and batches are best for a model on this machine."""

import dataclasses
import json
import math
import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from console import views
from producer.errors import ConfigurationError
from producer.settings import load
from producer.wire.models import TASKS, TaskName
from workers import embed_worker, rerank_worker
from workers.arrangements import Figure, best
from workers.calibration import ROW_BY_ROW_TOKENS
from workers.options import Command, settings_options
from workers.settings import WorkerSettings, cpu_limit
from workers.tuning import OnStep, Tuning, tune

_LOADS = {"embed": embed_worker.load, "rerank": rerank_worker.load}
_TAKEN = {"pin", "cache_dir"}
_LEFT_OUT = {field.name for field in dataclasses.fields(WorkerSettings)} - _TAKEN


_QUIET_LOAD = 0.5
"""Processes that want to run, for each CPU, beyond which something else is at work here."""


@click.command("tune", cls=Command, epilog="Example: headrace tune embed --model offline")
@click.argument("task", type=click.Choice(TASKS))
@click.option("--model", help="Model to measure; without it, the one of the environment or the default.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.001, 600),
    default=1.5,
    show_default=True,
    callback=lambda _context, _option, seconds: _check(seconds),
    help="Time for each measurement: so many CPUs have so many arrangements, of three each.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_options(WorkerSettings, leave_out=_LEFT_OUT)
def main(task: TaskName, model: str | None, seconds: float, as_json: bool, **flags: Any) -> None:
    """Find the best settings of a pool.

    Measures processes, threads and batches on this machine, which should have nothing else to do; needs no Redis.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, with all that was started
    settings = load(WorkerSettings, os.environ, **{**flags, f"{task}_model": model})
    cpus = cpu_limit()
    if (load_average := os.getloadavg()[0]) > _QUIET_LOAD * cpus:
        click.echo(
            f"warning: this machine is busy (load {load_average:.1f}): what is measured now is no good advice", err=True
        )
    with _progress() as on_step:
        found = tune(task, _LOADS[task], settings, cpus=cpus, seconds=seconds, on_step=on_step)
    if not found.figures:
        raise ConfigurationError("there is nothing to measure")
    name = settings.model(task)
    if as_json:
        click.echo(json.dumps(_as_json(task, name, cpus, found)))
        return
    chosen = best(found.figures)
    views.show(_table(f"{task} with {name} on {cpus} CPUs", found.figures, chosen))
    for arrangement in found.left_out:
        click.echo(f"{arrangement} (processes x threads) was left out: memory is too small for it")
    click.echo("\nThis pool by hand; or, as variables, all pools of an environment (headrace up, compose):")
    click.echo(f"  headrace worker {task} --model {shlex.quote(name)} {' '.join(_flags(chosen))}")
    click.echo("  " + " ".join(f"{variable}={value}" for variable, value in _variables(chosen).items()))


def _check(seconds: float) -> float:
    if math.isnan(seconds):  # which no range leaves out, and no time would ever reach
        raise click.BadParameter("it is not a number")
    return seconds


@contextmanager
def _progress() -> Iterator[OnStep]:
    """Say on standard error what is measured: in place on a terminal, else line by line."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda step: console.print(step, highlight=False)
        return
    with console.status("") as status:
        yield status.update


def _table(title: str, figures: list[Figure], chosen: Figure) -> Table:
    table = Table(title=views.plain(title), title_justify="left")
    for heading in ("processes", "threads", "batch tokens", "rows/s", "a short row", "memory", ""):
        table.add_column(heading, justify="right")
    for figure in figures:
        table.add_row(
            str(figure.arrangement.processes),
            str(figure.arrangement.threads),
            "row by row" if figure.budget_tokens == ROW_BY_ROW_TOKENS else str(figure.budget_tokens),
            f"{figure.rows_per_s:.1f}",
            f"{figure.short_row_ms:.1f} ms",
            decimal(figure.memory_bytes),
            "best" if figure is chosen else "",
            style="bold" if figure is chosen else None,
        )
    return table


def _variables(chosen: Figure) -> dict[str, int]:
    """The settings of a pool as environment variables; a model that runs row by row finds that out by itself."""
    arrangement, tokens = chosen.arrangement, chosen.budget_tokens
    variables = {"HEADRACE_PROCESSES": arrangement.processes, "HEADRACE_THREADS": arrangement.threads}
    return variables if tokens == ROW_BY_ROW_TOKENS else {**variables, "HEADRACE_BATCH_TOKENS": tokens}


def _flags(chosen: Figure) -> list[str]:
    variables = _variables(chosen).items()
    return [f"--{name.removeprefix('HEADRACE_').lower().replace('_', '-')} {value}" for name, value in variables]


def _as_json(task: TaskName, model: str, cpus: int, found: Tuning) -> dict[str, Any]:
    return {
        "task": task,
        "model": model,
        "cpus": cpus,
        "figures": [_figure_json(figure) for figure in found.figures],
        "left_out": [vars(arrangement) for arrangement in found.left_out],
        "best": _figure_json(best(found.figures)),
        "settings": _variables(best(found.figures)),
    }


def _figure_json(figure: Figure) -> dict[str, Any]:
    return {
        **vars(figure.arrangement),
        "batch_tokens": figure.budget_tokens,
        "rows_per_s": round(figure.rows_per_s, 2),
        "short_row_ms": round(figure.short_row_ms, 3),
        "memory_bytes": figure.memory_bytes,
    }
