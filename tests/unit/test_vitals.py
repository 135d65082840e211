"""What a pool sees of its processes: how long the work in hand runs, read from memory that another process writes."""

from typing import Any

import pytest

from workers.vitals import Vitals


class Ending:
    """A cell whose work ends as soon as somebody has looked at it."""

    def __init__(self, since_s: float) -> None:
        self._left = [since_s]

    @property
    def value(self) -> float:
        return self._left.pop() if self._left else 0.0


def test_the_work_that_began_first_counts_while_it_lasts() -> None:
    vitals = Vitals()
    with vitals.working():
        with vitals.tokenizing():
            assert vitals.working_s() > 0.0
        assert vitals.working_s() > 0.0
    assert vitals.working_s() == 0.0


@pytest.mark.parametrize("cell", ["_model_since_s", "_tokenizer_since_s"])
def test_work_that_ends_while_it_is_looked_at_does_not_seem_to_hang(monkeypatch: pytest.MonkeyPatch, cell: str) -> None:
    vitals = Vitals()
    monkeypatch.setattr("workers.vitals.time.monotonic", lambda: 1_000_001.0)
    ending: Any = Ending(1_000_000.0)
    monkeypatch.setattr(vitals, cell, ending)

    assert vitals.working_s() == 1.0
