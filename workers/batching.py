"""Chooses which rows run together: a budget of padded tokens, neighbours by length, interactive rows first.

A batch is padded to its longest row, so it costs rows x longest. On CPUs large batches gain nothing, and a batch
in hand is what an interactive row waits for: small budgets are right. Pure: no I/O, no clock.
"""

from bisect import insort
from collections import OrderedDict
from dataclasses import dataclass

from producer.wire.keys import Lane
from producer.wire.messages import Row


@dataclass(frozen=True, kw_only=True)
class QueuedRow:
    """A row in hand, measured: the entry it belongs to, and the tokens it takes after truncation.

    `deliveries` is how often a worker has begun its entry, this one included. More than once makes it a suspect, which
    runs alone: whoever began it before may have died of it.
    """

    row: Row
    lane: Lane
    entry_id: bytes
    tokens: int
    deliveries: int = 1
    expires_at_ms: float = float("inf")
    """Redis server time after which nobody may wait for the entry any more."""

    @property
    def suspect(self) -> bool:
        return self.deliveries > 1


class LookAhead:
    """The rows a worker holds and has not run yet; bounded by whoever fills it.

    `next_batch` always takes the oldest row of the first lane that has one, so that no row is passed over for
    ever, and adds the rows nearest to it in length while the batch stays within the budget. A suspect runs alone.
    """

    def __init__(self, budget_tokens: int) -> None:
        self._budget_tokens = budget_tokens
        self._rows: dict[Lane, OrderedDict[tuple[bytes, bytes], QueuedRow]] = {lane: OrderedDict() for lane in Lane}

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows.values())

    def count(self, lane: Lane) -> int:
        """How many rows of the lane are held."""
        return len(self._rows[lane])

    def add(self, row: QueuedRow) -> None:
        """Take a row in; the same row of the same entry counts once."""
        self._rows[row.lane].setdefault((row.entry_id, row.row.digest), row)

    def clear(self) -> None:
        """Forget everything: the entries are read again."""
        for rows in self._rows.values():
            rows.clear()

    def next_batch(self) -> list[QueuedRow]:
        """Remove and return the next batch: at least one row if there is any, sorted by length."""
        for lane in Lane:
            if self._rows[lane]:
                batch = self._gather(lane)
                for row in batch:
                    del self._rows[row.lane][row.entry_id, row.row.digest]
                return batch
        return []

    def _gather(self, lane: Lane) -> list[QueuedRow]:
        """Grow a batch from the lane's oldest row; bulk rows ride along with interactive ones where they fit.

        Interactive rows may raise the longest length; riders may not, so that they cost their own tokens only.
        """
        oldest = next(iter(self._rows[lane].values()))
        batch, longest = [oldest], oldest.tokens
        if oldest.suspect:
            return batch
        others = [row for row in self._rows[lane].values() if row is not oldest and not row.suspect]
        for row in sorted(others, key=lambda other: (abs(other.tokens - oldest.tokens), other.tokens)):
            padded = max(longest, row.tokens)
            if padded * (len(batch) + 1) <= self._budget_tokens:
                longest = padded
                insort(batch, row, key=lambda member: member.tokens)
        if lane is Lane.INTERACTIVE:
            riders = [row for row in self._rows[Lane.BULK].values() if row.tokens <= longest and not row.suspect]
            room = self._budget_tokens // longest - len(batch)
            for row in sorted(riders, key=lambda rider: -rider.tokens)[: max(0, room)]:
                insort(batch, row, key=lambda member: member.tokens)
        return batch
