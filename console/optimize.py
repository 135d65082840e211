"""The command `optimize`: makes a faster model, and prints what was tried and what it is worth."""

import os
import shlex
from pathlib import Path

import click
from rich.table import Table

from console import views
from console.judging import packaged_sample
from producer.settings import load
from producer.wire.models import TASKS, TaskName
from workers.models.optimize import ROW_BY_ROW, optimize
from workers.models.optimize_plan import METHODS, Attempt, Method, Order
from workers.options import Command
from workers.settings import WorkerSettings, cpu_limit


@click.command("optimize", cls=Command, epilog="Example: headrace optimize offline ./minilm-int8")
@click.argument("model")
@click.argument("out_dir", type=click.Path(path_type=Path))
@click.option("--task", type=click.Choice(TASKS), default="embed", show_default=True, help="What the model does.")
@click.option(
    "--method",
    type=click.Choice(["auto", *METHODS]),
    default="auto",
    show_default=True,
    help="float32 with fused operators; int8 with ranges taken while running, or calibrated; auto tries all.",
)
@click.option("--seven-bit", is_flag=True, help="Weights of 7 bits: int8 that is the same on CPUs without VNNI.")
@click.option("--cache-dir", default=None, help="Folder for models [HEADRACE_CACHE_DIR; default: none]")
def main(
    model: str, out_dir: Path, *, task: TaskName, method: Method | str, seven_bit: bool, cache_dir: str | None
) -> None:
    """Make a faster model for CPUs.

    Tries what onnxruntime's tools offer, compares each with MODEL on a judged sample, and writes the fastest that ranks
    as well to OUT_DIR, for pools to load as --model OUT_DIR.
    """
    settings = load(WorkerSettings, os.environ, cache_dir=cache_dir)
    methods = [known for known in METHODS if method in ("auto", known)]
    order = Order(task=task, model=model, out_dir=out_dir, methods=methods, seven_bit=seven_bit)
    outcome = optimize(
        order,
        packaged_sample(),
        cache_dir=settings.cache_path,
        threads=cpu_limit(),
        on_attempt=lambda attempt: click.echo(f"tried {attempt.method}", err=True),
    )
    views.show(attempts_table(outcome.attempts, outcome.method))
    if any(attempt.findings and not attempt.findings.batch_invariant for attempt in outcome.attempts):
        click.echo(f"Row by row, each row pays for its own way through the queue: {ROW_BY_ROW:g} of the speed counts.")
    name = shlex.quote(str(out_dir.absolute()))
    click.echo(f"{outcome.kept.method} is in {out_dir}; start a pool with: headrace worker {task} --model {name}")


def attempts_table(attempts: tuple[Attempt, ...], kept: Method) -> Table:
    """What was tried: against the original, in the arrangement that a pool would use."""
    table = Table(title="Against the original")
    for heading in ("method", "agreement", "nDCG@10", "rows/s", "runs", "verdict"):
        table.add_column(heading)
    for attempt in attempts:
        found, cells = attempt.findings, ["", "", "", ""]
        if found:
            cells = [
                f"{found.agreement:.4f}",
                f"{found.ndcg_at_10_before:.4f} → {found.ndcg_at_10_after:.4f}",
                f"{found.speedup:.2f} x",
                "batched" if found.batch_invariant else "row by row",
            ]
        table.add_row(attempt.method, *cells, attempt.reason or ("kept" if attempt.method == kept else "passes"))
    return table
