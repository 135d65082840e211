"""The look-ahead: budgets of padded tokens, oldest first, neighbours by length, interactive before bulk."""

import random

import pytest

from producer.wire.keys import Lane
from tests.unit.fakes import passage
from workers.batching import WASTE_TOKENS, LookAhead, QueuedRow, padded_tokens

INTERACTIVE, BULK = Lane.INTERACTIVE, Lane.BULK


def queued(name: str, tokens: int, lane: Lane = INTERACTIVE, entry: str = "") -> QueuedRow:
    """A row known by its text; by default in an entry of its own."""
    return QueuedRow(row=passage(name), lane=lane, entry_id=(entry or f"{lane}-{name}").encode(), tokens=tokens)


def look_ahead(budget_tokens: int, *rows: QueuedRow, share: float = 0.0) -> LookAhead:
    ahead = LookAhead(budget_tokens, bulk_share=share)
    for row in rows:
        ahead.add(row)
    return ahead


def names(batch: list[QueuedRow]) -> list[str]:
    return [row.row.text for row in batch]


def test_nothing_held_is_an_empty_batch() -> None:
    assert LookAhead(100).next_batch() == []


def test_rows_that_fit_the_budget_run_together_sorted_by_length() -> None:
    ahead = look_ahead(100, queued("b", 20), queued("c", 30), queued("a", 10))

    assert names(ahead.next_batch()) == ["a", "b", "c"]
    assert len(ahead) == 0


def test_the_budget_counts_padding() -> None:
    ahead = look_ahead(99, queued("long", 50), queued("short", 40))

    assert names(ahead.next_batch()) == ["long"], "two rows padded to 50 would be 100 tokens"
    assert names(ahead.next_batch()) == ["short"]


def test_the_budget_may_be_filled_exactly() -> None:
    ahead = look_ahead(100, queued("long", 50), queued("short", 40))

    assert len(ahead.next_batch()) == 2


def test_a_row_joins_only_if_that_wastes_little() -> None:
    near, far = 100 - WASTE_TOKENS, 100 - WASTE_TOKENS - 1
    ahead = look_ahead(1000, queued("oldest", 100), queued("near", near), queued("far", far))

    assert names(ahead.next_batch()) == ["near", "oldest"]
    assert names(ahead.next_batch()) == ["far"]


def test_a_longer_row_counts_the_padding_of_all_the_others() -> None:
    ahead = look_ahead(10_000, *(queued(f"r{n}", 100) for n in range(10)), queued("longer", 104))

    assert len(ahead.next_batch()) == 10, "four more tokens for each of ten rows"
    assert names(ahead.next_batch()) == ["longer"]


def test_a_row_longer_than_the_budget_runs_alone() -> None:
    ahead = look_ahead(100, queued("huge", 5000), queued("small", 1), queued("bulk", 1, BULK))

    assert names(ahead.next_batch()) == ["huge"]
    assert names(ahead.next_batch()) == ["small"]
    assert names(ahead.next_batch()) == ["bulk"]


def test_the_oldest_row_goes_first_whatever_its_length() -> None:
    ahead = look_ahead(100, queued("oldest", 100), *(queued(f"s{n}", 1) for n in range(50)))

    assert names(ahead.next_batch()) == ["oldest"]


def test_the_oldest_row_takes_its_neighbours_by_length() -> None:
    ahead = look_ahead(60, queued("first", 20), queued("far", 2), queued("near", 19), queued("nearest", 20))

    assert sorted(names(ahead.next_batch())) == ["first", "near", "nearest"]
    assert names(ahead.next_batch()) == ["far"]


def test_a_neighbour_that_does_not_fit_does_not_keep_out_a_shorter_one() -> None:
    ahead = look_ahead(44, queued("first", 20), queued("longer", 23), queued("shorter", 10))

    assert names(ahead.next_batch()) == ["shorter", "first"]


def test_interactive_rows_run_before_older_bulk_rows() -> None:
    ahead = look_ahead(20, queued("bulk", 20, BULK), queued("query", 20))

    assert names(ahead.next_batch()) == ["query"]
    assert names(ahead.next_batch()) == ["bulk"]


def test_no_bulk_row_rides_along_with_interactive_ones() -> None:
    """It would make them wait for its own computing."""
    ahead = look_ahead(1000, queued("query", 10), queued("bulk", 1, BULK))

    assert names(ahead.next_batch()) == ["query"]
    assert names(ahead.next_batch()) == ["bulk"]


def test_each_lane_has_its_own_budget() -> None:
    ahead = look_ahead(40, *(queued(f"q{n}", 10) for n in range(4)), *(queued(f"b{n}", 10, BULK) for n in range(4)))
    ahead.budgets[BULK] = 20

    assert [len(ahead.next_batch()) for _ in range(3)] == [4, 2, 2]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_bulk_rows_keep_their_share_of_the_tokens_under_an_unending_interactive_load(share: float) -> None:
    chance, ahead = random.Random(7), LookAhead(100, bulk_share=share)
    spent = dict.fromkeys(Lane, 0)
    for number in range(4000):
        for lane in Lane:
            while ahead.count(lane) < 8:
                ahead.add(queued(f"{lane}{number}-{ahead.count(lane)}", chance.randrange(1, 300), lane))
        batch = ahead.next_batch()
        spent[batch[0].lane] += padded_tokens(batch)

    assert spent[BULK] / sum(spent.values()) == pytest.approx(share, rel=0.1)


def test_without_a_share_bulk_rows_wait_until_no_interactive_row_is_left() -> None:
    ahead = look_ahead(10, queued("bulk", 10, BULK), *(queued(f"q{n}", 10) for n in range(50)))

    assert [names(ahead.next_batch()) for _ in range(51)][-1] == ["bulk"]


def test_bulk_rows_save_nothing_up_while_there_are_none() -> None:
    ahead = look_ahead(10, *(queued(f"q{n}", 10) for n in range(1000)), share=0.5)
    for _ in range(500):
        ahead.next_batch()
    ahead.add(queued("b0", 10, BULK))
    ahead.add(queued("b1", 10, BULK))

    assert names(ahead.next_batch())[0].startswith("q")
    assert names(ahead.next_batch()) == ["b0"]
    assert names(ahead.next_batch())[0].startswith("q")


def test_row_by_row_no_two_rows_share_a_batch() -> None:
    ahead = LookAhead(1000, row_by_row=True)
    for n in range(5):
        ahead.add(queued(f"r{n}", 1 + n % 3))
    ahead.add(queued("bulk", 1, BULK))

    batches = [names(ahead.next_batch()) for _ in range(6)]

    assert batches == [["r0"], ["r1"], ["r2"], ["r3"], ["r4"], ["bulk"]]


def test_the_tokens_in_hand_are_known() -> None:
    ahead = look_ahead(10, queued("a", 10), queued("a", 10), queued("b", 7), queued("bulk", 3, BULK))

    assert (ahead.tokens(INTERACTIVE), ahead.tokens(BULK)) == (17, 3)
    ahead.next_batch()
    assert ahead.tokens(INTERACTIVE) == 7
    ahead.clear()
    assert (ahead.tokens(INTERACTIVE), ahead.tokens(BULK)) == (0, 0)


def test_interactive_rows_never_ride_on_bulk_rows() -> None:
    ahead = look_ahead(1000, queued("b1", 10, BULK), queued("b2", 10, BULK))

    assert names(ahead.next_batch()) == ["b1", "b2"]


def test_the_same_row_of_the_same_entry_counts_once() -> None:
    ahead = look_ahead(100, queued("a", 10, entry="1-0"), queued("a", 10, entry="1-0"), queued("b", 10, entry="1-0"))

    assert len(ahead) == ahead.count(INTERACTIVE) == 2
    assert names(ahead.next_batch()) == ["a", "b"]


def test_the_same_row_of_another_entry_or_lane_counts_by_itself() -> None:
    ahead = look_ahead(
        100, queued("a", 10, entry="1-0"), queued("a", 10, entry="2-0"), queued("a", 10, BULK, entry="1-0")
    )

    assert (ahead.count(INTERACTIVE), ahead.count(BULK), len(ahead)) == (2, 1, 3)
    assert [names(ahead.next_batch()) for _ in range(2)] == [["a", "a"], ["a"]]


def test_clear_forgets_both_lanes() -> None:
    ahead = look_ahead(100, queued("a", 10), queued("b", 10, BULK))

    ahead.clear()

    assert len(ahead) == 0
    assert ahead.next_batch() == []


@pytest.mark.parametrize("seed", range(20))
def test_any_mix_comes_out_exactly_once_in_batches_that_keep_the_rules(seed: int) -> None:
    chance = random.Random(seed)
    budget_tokens = chance.choice([1, 16, 256, 1024])
    rows = [
        queued(f"r{number}", min(512, int(chance.lognormvariate(3, 1.2)) + 1), chance.choice(list(Lane)))
        for number in range(chance.randrange(1, 200))
    ]
    waiting, ahead = list(rows), LookAhead(budget_tokens)
    seen: list[QueuedRow] = []

    while waiting or len(ahead):
        for row in waiting[: chance.randrange(1, 64)]:
            ahead.add(row)
            waiting.remove(row)
        held = {lane: ahead.count(lane) for lane in Lane}
        oldest = next(row for lane in Lane if held[lane] for row in rows if row.lane is lane and row not in seen)
        batch = ahead.next_batch()
        lengths = [row.tokens for row in batch]

        assert lengths == sorted(lengths)
        assert len(batch) == 1 or lengths[-1] * len(batch) <= budget_tokens
        assert oldest in batch
        assert {row.lane for row in batch} == {oldest.lane}
        seen += batch

    assert sorted(names(seen)) == sorted(names(rows))
