"""`python -m benchmarks [NAME…]` (or `make bench`, `make bench ONLY=NAME`): measures, prints the table, writes it down.

Every figure is a ratio of two things measured side by side in this run, each benchmark in a process of its own. The
table, a plot in text and in PNG, and everything in JSON go to --output, as bench.* or under the names of those that
ran. A target that is missed is told, and is no
error; a benchmark that fails is told, lets the others run, and makes the exit code 1. Needs the extra [bench].
"""

import sys
from pathlib import Path

import click
from rich.console import Console

from benchmarks import report
from benchmarks.machine import describe
from benchmarks.runner import names, run_alone


@click.command()
@click.argument("only", nargs=-1, metavar="[NAME]…")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), default=Path("build/bench"), help="Folder.")
@click.option("--scale", type=click.FloatRange(min=0, min_open=True), default=1.0, help="Of the sizes; 1: as told.")
@click.option("--list", "list_names", is_flag=True, help="Print the benchmarks' names.")
def main(only: tuple[str, ...], output: Path, scale: float, list_names: bool) -> None:
    """Run the benchmarks that are named, or all, one after another."""
    if list_names:
        click.echo("\n".join(names()))
        return
    if unknown := [name for name in only if name not in names()]:
        raise click.UsageError(f"no benchmark is named {', '.join(unknown)}: there are {', '.join(names())}")
    outcomes = []
    for name in only or names():
        click.echo(f"{name} …", err=True)
        outcomes.append(run_alone(name, scale))
        click.echo(f"{name}: {outcomes[-1].seconds:.0f} s{' (failed)' * bool(outcomes[-1].error)}", err=True)
    result = report.Result(machine=describe(), scale=scale, outcomes=tuple(outcomes))
    report.write(result, output, "-".join(only) or "bench")  # first, since it took minutes, and a terminal may be gone
    report.show(result, Console(width=None if sys.stdout.isatty() else report.WIDTH))
    click.echo(f"written to {output}", err=True)
    sys.exit(1 if any(outcome.error for outcome in outcomes) else 0)


if __name__ == "__main__":
    main()
