"""Which budget of padded tokens a batch gets, chosen from speeds that were measured. Pure: no I/O, no clock."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

TOLERANCE = 0.03
"""Speeds that differ by less count as the same: the smaller batch wins, since an interactive row may wait for it."""


@dataclass(frozen=True, kw_only=True)
class BatchBudget:
    """What the engine works with: most padded tokens of a batch, and padded tokens a second (0.0: unknown)."""

    tokens: int
    tokens_per_s: float


UNKNOWN = BatchBudget(tokens=1024, tokens_per_s=0.0)
"""The budget of a model that nobody has measured."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How many padded tokens a second were measured in batches of up to so many."""

    budget_tokens: int
    tokens_per_s: float


def choose(speeds: Sequence[Speed], asked_tokens: int = 0) -> BatchBudget:
    """The smallest budget that is about as fast as the fastest; or the one that was asked for, whatever its speed.

    The speed of a budget that was not measured is that of the nearest one that was.
    """
    if not speeds:
        return BatchBudget(tokens=asked_tokens or UNKNOWN.tokens, tokens_per_s=UNKNOWN.tokens_per_s)
    if asked_tokens:
        nearest = min(speeds, key=lambda speed: abs(speed.budget_tokens - asked_tokens))
        return BatchBudget(tokens=asked_tokens, tokens_per_s=nearest.tokens_per_s)
    enough = max(speed.tokens_per_s for speed in speeds) * (1 - TOLERANCE)
    chosen = min((speed for speed in speeds if speed.tokens_per_s >= enough), key=lambda speed: speed.budget_tokens)
    return BatchBudget(tokens=chosen.budget_tokens, tokens_per_s=chosen.tokens_per_s)


def gains(speeds: Sequence[Speed]) -> bool:
    """Whether the last budget was clearly faster than the one before it, so that a larger one may be faster still."""
    return len(speeds) < 2 or speeds[-1].tokens_per_s > speeds[-2].tokens_per_s * (1 + TOLERANCE)


def batches(tokens: Sequence[int], budget_tokens: int) -> Iterator[list[int]]:
    """Group rows by length as the engine does: the indices of each batch within the budget, or of one row alone."""
    batch: list[int] = []
    for index in sorted(range(len(tokens)), key=tokens.__getitem__):
        if batch and tokens[index] * (len(batch) + 1) > budget_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
