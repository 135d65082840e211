"""A progress bar with rate and time left; plain lines where the output is no terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
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
        yield _plain_lines(console, total)
        return
    columns = (TextColumn("embedding"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("embedding", total=total)
        yield lambda: progress.advance(task)


def _plain_lines(console: Console, total: int | None) -> Callable[[], None]:
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
