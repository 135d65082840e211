"""What every chaos campaign shares: a short and a long form, a seed, and figures for docs/reliability.md."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Chooses by form: `sizes(short=400, long=10_000)`. The short form is part of `make test`: about 15 s at most."""

    is_long: bool

    def __call__(self, *, short: Value, long: Value) -> Value:
        return long if self.is_long else short


class Report:
    """Figures of the campaigns: `report("kills", {"rows": 600, "computed twice": "2.1 %"})` prints them at once."""

    def __init__(self, print_line: Callable[[str], None]) -> None:
        self._print_line = print_line
        self.lines: list[str] = []

    def __call__(self, name: str, figures: Mapping[str, object]) -> None:
        line = f"{name}: " + ", ".join(f"{what} {value}" for what, value in figures.items())
        self.lines.append(line)
        self._print_line(line)

    def table(self) -> list[str]:
        """All lines so far as rows of a table in Markdown."""
        rows = (line.partition(": ")[::2] for line in self.lines)
        return ["| campaign | figures |", "|---|---|", *(f"| {name} | {figures} |" for name, figures in rows)]


def percent(part: int, whole: int) -> str:
    """A share for a report, such as "2.1 %"."""
    return f"{part / whole:.1%}".replace("%", " %") if whole else "none"


def chance(seed: int, *parts: object) -> random.Random:
    """A source of chance of its own for each part of a campaign, so that threads do not change each other's draws."""
    return random.Random(":".join(map(str, (seed, *parts))))
