"""How processes, threads and batches may share a machine, and which of the measured ways is best. Pure: no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from workers.budget import TOLERANCE

_FEW_CPUS = 4


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """So many processes, each with so many model threads."""

    processes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.processes} x {self.threads}"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What was measured of an arrangement with one budget, all of its processes at work at the same time."""

    arrangement: Arrangement
    budget_tokens: int
    rows_per_s: float
    """Rows of mixed lengths, all processes together."""

    short_row_ms: float
    """Median time of one short row, with nothing else to do."""

    memory_bytes: int
    """What the processes take together (PSS: what they share counts once)."""


def arrangements(cpus: int) -> list[Arrangement]:
    """What is worth measuring, few processes first: everything that fits few CPUs, or what uses many of them fully."""
    fitting = [
        Arrangement(processes=processes, threads=threads)
        for processes in range(1, cpus + 1)
        for threads in range(1, cpus // processes + 1)
    ]
    if cpus <= _FEW_CPUS:
        return fitting
    return [
        one for one in fitting if (one.processes + 1) * one.threads > cpus and one.processes * (one.threads + 1) > cpus
    ]


def best(figures: Sequence[Figure]) -> Figure:
    """The most rows a second; of those that are about as fast, the fewest processes, then the smallest batches."""
    enough = max(figure.rows_per_s for figure in figures) * (1 - TOLERANCE)
    return min(
        (figure for figure in figures if figure.rows_per_s >= enough),
        key=lambda figure: (figure.arrangement.processes, figure.budget_tokens, figure.short_row_ms),
    )
