"""Chooses which rows run together: a budget of padded tokens, neighbours by length, interactive rows first.

A batch is padded to its longest row, so it costs rows x longest. On CPUs large batches gain nothing, and a batch
in hand is what an interactive row waits for: small budgets are right. Pure: no I/O, no clock.
"""

from bisect import insort
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from producer.wire.keys import Lane
from producer.wire.messages import Row

WASTE_TOKENS = 32
"""Padding that a row may cause by joining a batch; beyond, it had better run in the next one, which costs about so much
(offline model, one core). Four rows at hand that are padded without limit cost 1.9 times their tokens, so 1.1 times."""


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

    `next_batch` always takes the oldest row of a lane, so that no row is passed over for ever, and adds the rows of
    that lane nearest to it in length while the batch stays within the lane's budget and wastes little. A suspect runs
    alone.

    Interactive rows go first. While they keep bulk rows waiting, those are owed `bulk_share` of all padded tokens, and
    get a batch whenever that has come together: bulk work is slowed down, but never stands still.

    With `row_by_row`, for models whose results depend on what shares the batch, every row runs alone.
    """

    def __init__(self, budget_tokens: int, *, bulk_share: float = 0.0, row_by_row: bool = False) -> None:
        self.budgets = dict.fromkeys(Lane, budget_tokens)
        """Padded tokens of a batch of each lane, at most."""

        self._row_by_row = row_by_row
        self._owed_per_token = bulk_share / (1 - bulk_share)
        self._owed_tokens = 0.0
        self._rows: dict[Lane, OrderedDict[tuple[bytes, bytes], QueuedRow]] = {lane: OrderedDict() for lane in Lane}
        self._tokens = dict.fromkeys(Lane, 0)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows.values())

    def count(self, lane: Lane) -> int:
        """How many rows of the lane are held."""
        return len(self._rows[lane])

    def tokens(self, lane: Lane) -> int:
        """How many tokens the rows of the lane have."""
        return self._tokens[lane]

    def add(self, row: QueuedRow) -> None:
        """Take a row in; the same row of the same entry counts once."""
        key = row.entry_id, row.row.digest
        if key not in self._rows[row.lane]:
            self._rows[row.lane][key] = row
            self._tokens[row.lane] += row.tokens

    def clear(self) -> None:
        """Forget everything: the entries are read again."""
        for lane, rows in self._rows.items():
            rows.clear()
            self._tokens[lane] = 0

    def next_batch(self) -> list[QueuedRow]:
        """Remove and return the next batch: at least one row if there is any, sorted by length."""
        if not len(self):
            return []
        lane = self._next_lane()
        batch = self._gather(lane)
        for row in batch:
            del self._rows[lane][row.entry_id, row.row.digest]
            self._tokens[lane] -= row.tokens
        self._account(lane, padded_tokens(batch))
        return batch

    def _next_lane(self) -> Lane:
        interactive, bulk = self._rows[Lane.INTERACTIVE], self._rows[Lane.BULK]
        owed = bool(bulk) and self._owed_tokens >= self.budgets[Lane.BULK]
        return Lane.INTERACTIVE if interactive and not owed else Lane.BULK

    def _account(self, lane: Lane, cost_tokens: int) -> None:
        """Note what bulk rows are owed. Nothing is saved up while there are none, nor while they have the model."""
        if not self._rows[Lane.BULK]:
            self._owed_tokens = 0.0
        elif lane is Lane.INTERACTIVE:
            self._owed_tokens += cost_tokens * self._owed_per_token
        elif self._rows[Lane.INTERACTIVE]:
            self._owed_tokens -= cost_tokens

    def _gather(self, lane: Lane) -> list[QueuedRow]:
        """Grow a batch from the lane's oldest row."""
        rows = self._rows[lane].values()
        oldest = next(iter(rows))
        batch, longest, budget = [oldest], oldest.tokens, self.budgets[lane]
        if self._row_by_row or oldest.suspect:
            return batch
        others = [row for row in rows if row is not oldest and not row.suspect]
        for row in sorted(others, key=lambda other: (abs(other.tokens - oldest.tokens), other.tokens)):
            padded = max(longest, row.tokens)
            wasted = (padded - longest) * len(batch) + padded - row.tokens
            if padded * (len(batch) + 1) <= budget and wasted <= WASTE_TOKENS:
                longest = padded
                insort(batch, row, key=lambda member: member.tokens)
        return batch


def padded_tokens(batch: Sequence[QueuedRow]) -> int:
    """What a batch costs: as many tokens as it has cells, with all rows padded to the longest."""
    return len(batch) * max((row.tokens for row in batch), default=0)
