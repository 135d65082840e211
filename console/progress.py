"""Progress bars with rates and time left; plain lines where the output is no terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from console.views import duration
from producer.bulk.progress import Progress as RunProgress

_LINE_EVERY_S = 5.0


class _Rate(ProgressColumn):
    """Rows per second, lately."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} rows/s")


@contextmanager
def progress_bar(total: int | None) -> Iterator[Callable[[], None]]:
    """Show progress on standard error; yields what to call for each row."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_rows(console, total)
        return
    columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("embedding", total=total)
        yield lambda: progress.advance(task)


@contextmanager
def run_progress() -> Iterator[Callable[[RunProgress], None]]:
    """Show how far a re-embedding is, on standard error; yields what to call with each report."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain_reports(console)
        return
    columns = (TextColumn("embedding"), BarColumn(None), TextColumn("{task.fields[done]}"))
    bar = Progress(*columns, console=console, expand=True)
    task = bar.add_task("embedding", total=None, done="")
    below = Text()
    with Live(Group(bar, below), console=console):

        def show(now: RunProgress) -> None:
            bar.update(task, completed=now.rows + now.rejected, total=now.total, done=done(now))
            below.plain = ", ".join([*rates(now), *left(now)])

        yield show


def done(now: RunProgress) -> str:
    """How many rows are behind a run, of how many."""
    total = "?" if now.total is None else f"{now.total:,}"
    return f"{now.rows + now.rejected:,} of {total} rows"


def rates(now: RunProgress) -> list[str]:
    """How fast a run is, how much was cached, and what failed."""
    parts = [f"{now.rows_per_s:,.0f} rows/s"]
    if now.tokens_per_s is not None:
        parts.append(f"about {now.tokens_per_s:,.0f} tokens/s")
    return [*parts, f"{now.cached_rows / max(1, now.rows):.0%} cached", f"{now.rejected:,} failed"]


def left(now: RunProgress) -> list[str]:
    """The time left, where it can be told."""
    return [] if now.eta_s is None else [f"{duration(now.eta_s)} left"]


def report_line(now: RunProgress) -> str:
    """One report as a line."""
    return ", ".join([done(now), *rates(now), *left(now)])


def _plain_reports(console: Console) -> Callable[[RunProgress], None]:
    said = time.monotonic()

    def show(now: RunProgress) -> None:
        nonlocal said
        if time.monotonic() - said >= _LINE_EVERY_S:
            said = time.monotonic()
            console.print(report_line(now), highlight=False, soft_wrap=True)

    return show


def _plain_rows(console: Console, total: int | None) -> Callable[[], None]:
    started = said = time.monotonic()
    rows = 0

    def on_row() -> None:
        nonlocal said, rows
        rows += 1
        now = time.monotonic()
        if now - said >= _LINE_EVERY_S:
            said = now
            rate = rows / (now - started)
            left = f", {(total - rows) / rate:.0f} s left" if total else ""
            console.print(f"{rows} of {total or '?'} rows, {rate:.1f} rows/s{left}", highlight=False)

    return on_row
