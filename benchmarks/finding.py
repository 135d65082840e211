"""What a benchmark says: one measured figure, what it was measured against, and the bound that it should keep."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the table. `measured` is compared with `bound`: mostly a ratio (unit "x") of `ours` to `theirs`."""

    target: str
    """Number in the list of targets, such as "1b"; "" for a figure without a target."""

    what: str
    against: str
    measured: float
    bound: float | None
    at_least: bool = True
    """Whether the bound is the least or the most that is wanted."""

    unit: str = "x"
    ours: str = ""
    theirs: str = ""
    """Both sides of the ratio in their own units, such as "23.1 rows/s"."""

    note: str = ""
    """Where the bound is not kept: what limits the figure."""

    @property
    def kept(self) -> bool | None:
        """Whether the bound is kept; None where there is none."""
        if self.bound is None:
            return None
        return self.measured >= self.bound if self.at_least else self.measured <= self.bound

    @property
    def figure(self) -> str:
        """The figure with its unit."""
        return f"{self.measured:.3g} {self.unit}".rstrip()

    @property
    def wanted(self) -> str:
        """The bound as it is read: "≥ 0.92"; "" where there is none."""
        return "" if self.bound is None else f"{'≥' if self.at_least else '≤'} {self.bound:g}"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two things measured in turns: the medians of each, and of the rounds' ratios (a noisy machine disturbs both)."""

    ours: float
    theirs: float
    ratio: float


def in_turns(ours: Callable[[], float], theirs: Callable[[], float], *, rounds: int) -> Pair:
    """Measure both `rounds` times, in changing order; each call returns its own figure, such as rows/s or ms."""
    figures: list[tuple[float, float]] = []
    for number in range(rounds):
        if number % 2:
            second = theirs()
            figures.append((ours(), second))
        else:
            first = ours()
            figures.append((first, theirs()))
    return Pair(
        ours=median(mine for mine, _ in figures),
        theirs=median(other for _, other in figures),
        ratio=median(mine / other for mine, other in figures),
    )


def percentile(values: list[float], percent: float) -> float:
    """The smallest of the values that so many percent of them do not exceed (nearest rank)."""
    rank = math.ceil(len(values) * percent / 100)
    return sorted(values)[max(0, rank - 1)]
