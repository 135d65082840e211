"""Rows answered in any order: how far the oldest open one is behind, and their vectors in the order of their texts."""

from collections.abc import Iterator

from producer.results import RowOutcome, Vector


class Span:
    """Numbered rows from the oldest that is not answered to the newest that was taken."""

    def __init__(self) -> None:
        self.end = 0
        """The number of the next row to be taken."""

        self.first = 0
        """The number of the oldest row that is not answered."""

        self._answered: set[int] = set()

    @property
    def rows(self) -> int:
        """How many rows it holds, those that are answered out of order among them."""
        return self.end - self.first

    def extend(self, count: int) -> None:
        """Take the next rows."""
        self.end += count

    def answer(self, number: int) -> None:
        """Note that a row is answered."""
        self._answered.add(number)
        while self.first in self._answered:
            self._answered.remove(self.first)
            self.first += 1


class InOrder:
    """Holds back what is answered before its turn."""

    def __init__(self) -> None:
        self._next = 0
        self._held: dict[int, RowOutcome] = {}

    def take(self, outcome: RowOutcome) -> Iterator[Vector]:
        """Take one outcome, give the vectors whose turn it is: each float32, shape (dimension,).

        Raises:
            HeadraceError: the row whose turn it is has failed.
        """
        self._held[outcome.index] = outcome
        while (due := self._held.pop(self._next, None)) is not None:
            self._next += 1
            yield due.checked()
