"""How far a run has come without a gap: items may be done in any order, the front passes them in that of the source."""

from collections.abc import Container, Iterator
from operator import itemgetter

from producer.bulk.ends import Json
from producer.bulk.rejects import Reject


class Front:
    """Numbered items of a source; everything before the front is done. The counts are of this start alone."""

    def __init__(self) -> None:
        self.taken = self.failed = 0
        """How many items were taken, and how many of them rejected, before the front or beyond it."""

        self.passed_rows = self.passed_cached = self.passed_rejects = 0
        self.position: Json = None
        """The source's position at the front; None until it has passed an item."""

        self.first_reject: Reject | None = None
        self._first = 0
        self._positions: dict[int, Json] = {}
        self._done: dict[int, Reject | bool] = {}

    @property
    def passed(self) -> int:
        """How many items it has passed."""
        return self._first

    def take(self, position: Json) -> int:
        """Number the next item of the source."""
        number = self.taken
        self._positions[number] = position
        self.taken += 1
        return number

    def written(self, number: int, *, cached: bool) -> None:
        """Note that an item's row is in the sink, and whether its vector came from the cache."""
        self._done[number] = cached

    def reject(self, number: int, reject: Reject) -> None:
        """Note that an item is set aside."""
        self._done[number] = reject
        self.failed += 1
        self.first_reject = self.first_reject or reject

    def move(self) -> list[Reject]:
        """Pass all that is done up to the first item that is not; the answer is the rejects on the way."""
        passed = []
        while self._first in self._done:
            done = self._done.pop(self._first)
            self.position = self._positions.pop(self._first)
            self._first += 1
            if isinstance(done, Reject):
                self.passed_rejects += 1
                passed.append(done)
            else:
                self.passed_rows += 1
                self.passed_cached += done
        return passed

    def rejects_beyond(self) -> list[Reject]:
        """The rejects that it has not passed yet."""
        return [done for _, done in sorted(self._done.items(), key=itemgetter(0)) if isinstance(done, Reject)]

    def due(self, ready: Container[int]) -> Iterator[int]:
        """Of the items that are ready to be written, those that come next in the order of the source."""
        number = self._first
        while True:
            if number in ready:
                yield number
            elif number not in self._done:
                return
            number += 1
