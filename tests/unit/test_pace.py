"""The pace of a model: what it learns, and what it makes of a length of time."""

from workers.pace import Pace


def test_nothing_is_known_before_the_first_batch() -> None:
    pace = Pace()

    assert pace.seconds(1000) == 0.0
    assert pace.budget_tokens(0.05, 1024) == 1024


def test_the_first_batch_tells_and_later_ones_correct() -> None:
    pace = Pace()
    pace.note(1000, 1.0)
    assert pace.tokens_per_s == 1000

    for _ in range(50):
        pace.note(2000, 1.0)

    assert 1990 < pace.tokens_per_s <= 2000


def test_tiny_batches_teach_nothing() -> None:
    """Their fixed cost would make the budget smaller and smaller."""
    pace = Pace(4000.0)

    pace.note(10, 0.1)

    assert pace.tokens_per_s == 4000


def test_a_budget_lasts_as_long_as_asked_within_bounds() -> None:
    assert Pace(4000.0).budget_tokens(0.05, 1024) == 200
    assert Pace(1e9).budget_tokens(0.05, 1024) == 1024
    assert Pace(100.0).budget_tokens(0.05, 1024) == 64, "a smaller batch of a slow model would hardly be shorter"
    assert Pace(100.0).budget_tokens(0.05, 16) == 16
