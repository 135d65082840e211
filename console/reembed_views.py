"""Detached re-embeddings for people and programs: a table, a line of progress, an outcome."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from console.views import duration, plain, printable

if TYPE_CHECKING:
    from producer.bulk.detached import DetachedJob

_LONG_S = 20.0
"""Who watches wants to be told of so long a time without news: a run tells of itself every 2 seconds."""


def jobs_table(jobs: "Sequence[DetachedJob]", now_s: float) -> Table:
    """One line for each job."""
    table = Table()
    for heading in ("id", "status", "source", "sink", "rows", "percent", "rows/s", "failures", "age"):
        words = heading in ("id", "status", "source", "sink")
        table.add_column(heading, justify="left" if words else "right", overflow="fold")
    for job in jobs:
        percent = "-" if job.percent is None else f"{job.percent:.1f}"
        rate = "-" if job.rows_per_s is None or job.over else f"{job.rows_per_s:.1f}"
        counts = (str(job.rows), percent, rate, str(job.rejected))
        names = (plain(job.id), plain(job.status), plain(job.source), plain(job.sink))
        table.add_row(*names, *counts, duration(max(0.0, now_s - job.created_at.timestamp())))
    return table


def job_json(job: "DetachedJob") -> dict[str, Any]:
    """The same for programs; times in seconds since 1970."""
    times = {"created_at": job.created_at.timestamp(), "ended_at": job.ended_at and job.ended_at.timestamp()}
    return {**dataclasses.asdict(job), **times, "percent": job.percent}


def progress_line(job: "DetachedJob", note: str = "") -> str:
    """How far a job is: "started: 1200 of 5000 rows (24.0 %), …"."""
    done = job.rows + job.rejected
    parts = [f"{done} of {job.total} rows ({job.percent:.1f} %)" if job.total else f"{done} rows"]
    if job.rows_per_s is not None:
        parts.append(f"{job.rows_per_s:.1f} rows/s")
    if job.tokens_per_s is not None:
        parts.append(f"{job.tokens_per_s:.0f} tokens/s")
    if job.rows:
        parts.append(f"{100 * job.cached_rows / job.rows:.0f} % cached")
    parts.append(f"{job.rejected} failed")
    if job.eta_s is not None:
        parts.append(f"{duration(job.eta_s)} left")
    if job.attempt > 1:
        parts.append(f"attempt {job.attempt}")
    notes = "".join(f"; {text}" for text in (job.error, note) if text)
    return printable(f"{job.status}: {', '.join(parts)}{notes}")


def outcome_line(job: "DetachedJob") -> str:
    """What a finished job came to."""
    result = job.result or {}
    checked, rejects = result.get("checked"), result.get("rejects_path")
    parts = [f"{job.rows} rows written to {job.sink}"]
    if job.rejected:
        parts.append(f"{job.rejected} failed (see {rejects})")
    if checked:
        parts.append(str(checked))
    return printable(", ".join(parts))


class Silence:
    """Tells when a job that runs has come no further for a while: its worker is gone, or the pool or the store away."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: tuple[Any, ...] = ()
        self._since_s = clock()

    def note(self, job: "DetachedJob") -> str:
        """What to say of it; "" while it gets on."""
        seen = (job.status, job.attempt, job.rows, job.rejected)
        if seen != self._seen:
            self._seen, self._since_s = seen, self._clock()
        silent_s = self._clock() - self._since_s
        return f"nothing new for {duration(silent_s)}" if job.status == "started" and silent_s >= _LONG_S else ""


@contextmanager
def watching(line_every_s: float) -> "Iterator[Callable[[DetachedJob, str], None]]":
    """Show progress on standard error: one line that changes, or a line now and then where there is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(console, line_every_s)
        return
    with Live(console=console, transient=True) as live:
        yield lambda job, note: live.update(Text(progress_line(job, note)))


def _lines(console: Console, every_s: float) -> "Callable[[DetachedJob, str], None]":
    said_at_s, said_of = float("-inf"), ""

    def show(job: "DetachedJob", note: str) -> None:
        nonlocal said_at_s, said_of
        now_s = time.monotonic()
        if job.status != said_of or now_s - said_at_s >= every_s:
            said_at_s, said_of = now_s, job.status
            console.print(progress_line(job, note), highlight=False, markup=False, soft_wrap=True)

    return show
