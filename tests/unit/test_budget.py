"""The choice of a budget from measured speeds, and how rows are grouped within one."""

import pytest

from workers.budget import UNKNOWN, BatchBudget, Speed, batches, choose, gains


def speeds(**rates: float) -> list[Speed]:
    return [Speed(budget_tokens=int(name[1:]), tokens_per_s=rate) for name, rate in rates.items()]


@pytest.mark.parametrize(
    ("measured", "tokens", "tokens_per_s"),
    [
        (speeds(b256=4000.0), 256, 4000.0),
        (speeds(b256=4000.0, b512=4100.0), 256, 4000.0),
        (speeds(b256=4000.0, b512=4200.0), 512, 4200.0),
        (speeds(b256=3000.0, b512=4000.0, b1024=4100.0), 512, 4000.0),
        (speeds(b256=3000.0, b512=4000.0, b1024=5000.0, b2048=4990.0), 1024, 5000.0),
        (speeds(b256=4000.0, b512=3000.0), 256, 4000.0),
        (speeds(b512=4000.0, b256=3990.0), 256, 3990.0),
    ],
)
def test_the_smallest_budget_that_is_about_as_fast_as_the_fastest(
    measured: list[Speed], tokens: int, tokens_per_s: float
) -> None:
    assert choose(measured) == BatchBudget(tokens=tokens, tokens_per_s=tokens_per_s)


@pytest.mark.parametrize(("asked", "tokens_per_s"), [(1, 3000.0), (300, 3000.0), (500, 4000.0), (99999, 4100.0)])
def test_what_is_asked_for_wins_with_the_speed_of_the_nearest(asked: int, tokens_per_s: float) -> None:
    measured = speeds(b256=3000.0, b512=4000.0, b1024=4100.0)

    assert choose(measured, asked) == BatchBudget(tokens=asked, tokens_per_s=tokens_per_s)


def test_without_any_speed_it_is_unknown() -> None:
    assert choose([]) == UNKNOWN
    assert choose([], 77) == BatchBudget(tokens=77, tokens_per_s=0.0)


def test_a_larger_budget_is_tried_while_the_last_one_was_clearly_faster() -> None:
    assert gains([])
    assert gains(speeds(b256=1.0))
    assert gains(speeds(b256=100.0, b512=104.0))
    assert not gains(speeds(b256=100.0, b512=102.0))
    assert not gains(speeds(b256=100.0, b512=110.0, b1024=90.0))


@pytest.mark.parametrize(
    ("tokens", "budget", "groups"),
    [
        ([], 10, []),
        ([3], 1, [[0]]),
        ([5, 1, 1, 5], 4, [[1, 2], [0], [3]]),
        ([5, 1, 1, 5], 10, [[1, 2], [0, 3]]),
        ([5, 1, 1, 5], 20, [[1, 2, 0, 3]]),
        ([100, 2], 10, [[1], [0]]),
    ],
)
def test_rows_are_grouped_by_length_within_the_budget(tokens: list[int], budget: int, groups: list[list[int]]) -> None:
    assert list(batches(tokens, budget)) == groups


def test_batches_keep_the_budget_and_hold_every_row_once() -> None:
    tokens = [5, 100, 7, 2000, 90, 3]
    formed = list(batches(tokens, 200))

    assert sorted(index for batch in formed for index in batch) == list(range(6))
    assert [3] in formed, "the row that is longer than the budget is alone"
    assert all(len(batch) == 1 or max(tokens[index] for index in batch) * len(batch) <= 200 for batch in formed)
    assert len(list(batches(tokens, 1))) == 6
