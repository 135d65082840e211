"""Draws how far each figure is from its bound, on a log scale: as text, and as PNG."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.finding import Finding

_FARTHEST = 8.0
_TICKS = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)
_HALF_BAR = 24
_KEPT, _MISSED = "#2f7d4f", "#b3402a"


def margin(finding: Finding) -> float | None:
    """How many times better than its bound a figure is; below 1 the bound is not kept. None where there is none.

    Where a figure or its bound is no positive number, such as none of something, it is as good or as bad as can be.
    """
    if finding.bound is None:
        return None
    better, worse = (finding.measured, finding.bound)[:: 1 if finding.at_least else -1]
    if better > 0 and worse > 0:
        return better / worse
    return math.inf if finding.kept else 0.0


def bars(findings: Sequence[Finding]) -> Iterator[str]:
    """Draw how far each figure is from its bound: to the right of the line it is kept, one end is 8 times."""
    drawn = [(one, times) for one in findings if (times := margin(one)) is not None]
    if drawn:
        yield f"{'':4} {'1/8 of the bound':<{_HALF_BAR}}|{'8 times better':>{_HALF_BAR}}"
    for one, times in drawn:
        length = round(_HALF_BAR * abs(math.log(_clipped(times), _FARTHEST)))
        left, right = ("", "#" * length) if times >= 1 else ("#" * length, "")
        yield f"{one.target:>4} {left:>{_HALF_BAR}}|{right:<{_HALF_BAR}} {times:5.2f}  {one.what}"


def write_png(findings: Sequence[Finding], path: Path) -> None:
    """Draw the same as a picture."""
    # Here, because only this wants it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    drawn = [(one, times) for one in reversed(findings) if (times := margin(one)) is not None]
    figure = Figure(figsize=(11, 1.2 + 0.32 * len(drawn)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = range(len(drawn))
    axes.barh(
        list(places),
        [_clipped(times) - 1 for _, times in drawn],
        left=1.0,
        color=[_KEPT if times >= 1 else _MISSED for _, times in drawn],
    )
    axes.set_xscale("log", base=2)
    axes.set_xlim(1 / _FARTHEST, _FARTHEST)
    axes.set_xticks(list(_TICKS), [f"{tick:g}" for tick in _TICKS])
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_yticks(list(places), [f"{one.target}  {one.what}"[:90] for one, _ in drawn], fontsize=8)
    for place, (one, times) in zip(places, drawn, strict=True):  # on the side where no bar is
        side = "right" if times >= 1 else "left"
        axes.annotate(f"  {one.figure} ({one.wanted})  ", (1.0, place), fontsize=7, va="center", ha=side)
    axes.set_xlabel("times better than the bound (log scale); left of the line: missed")
    figure.savefig(path, dpi=120)


def _clipped(times: float) -> float:
    return min(_FARTHEST, max(1 / _FARTHEST, times))
