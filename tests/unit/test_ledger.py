"""The ledger of entries in hand, and the counters of what was done."""

import logging

import pytest

from producer.wire.keys import Lane
from producer.wire.messages import EntrySize
from workers.ledger import Ledger
from workers.progress import Progress

INTERACTIVE, BULK = Lane.INTERACTIVE, Lane.BULK


def size(entry_id: bytes) -> EntrySize:
    return EntrySize(id=entry_id, rows=2, size_bytes=20)


def test_an_entry_is_done_with_its_last_row() -> None:
    ledger = Ledger()
    ledger.open(BULK, size(b"1-0"), [b"a", b"b", b"a"])

    assert ledger.open_rows == 2
    assert ledger.ended_by(BULK, [(b"1-0", b"a")]) == []
    ledger.close(BULK, [(b"1-0", b"a"), (b"1-0", b"a")])
    assert ledger.holds(BULK, b"1-0")
    assert ledger.ended_by(BULK, [(b"1-0", b"b")]) == [size(b"1-0")]
    assert ledger.holds(BULK, b"1-0"), "it is in hand until somebody says that it is over"
    ledger.close(BULK, [(b"1-0", b"b")])
    assert not ledger.holds(BULK, b"1-0")
    assert ledger.ended_by(BULK, [(b"1-0", b"b")]) == [], "it is done once"


def test_an_entry_may_end_with_several_rows_at_once() -> None:
    ledger = Ledger()
    ledger.open(BULK, size(b"1-0"), [b"a", b"b"])
    ledger.open(BULK, size(b"2-0"), [b"a", b"b"])

    assert ledger.ended_by(BULK, [(b"1-0", b"a"), (b"2-0", b"a"), (b"1-0", b"b")]) == [size(b"1-0")]


def test_the_same_id_on_the_other_lane_is_another_entry() -> None:
    ledger = Ledger()
    ledger.open(BULK, size(b"1-0"), [b"a"])

    assert not ledger.holds(INTERACTIVE, b"1-0")
    assert ledger.ended_by(INTERACTIVE, [(b"1-0", b"a")]) == []
    assert ledger.entry_ids(INTERACTIVE) == []
    assert ledger.entry_ids(BULK) == [b"1-0"]


def test_entries_are_listed_oldest_first_and_forgotten_together() -> None:
    ledger = Ledger()
    for entry_id in (b"2-0", b"3-0", b"10-0"):
        ledger.open(INTERACTIVE, size(entry_id), [b"a"], attempts=int(entry_id[:1]))

    assert ledger.entry_ids(INTERACTIVE) == [b"2-0", b"3-0", b"10-0"]
    ledger.forfeited = True
    assert ledger.drain() == {(INTERACTIVE, b"2-0"): 2, (INTERACTIVE, b"3-0"): 3, (INTERACTIVE, b"10-0"): 1}
    assert not ledger.forfeited
    assert (ledger.entry_ids(INTERACTIVE), ledger.open_rows) == ([], 0)


def test_attempts_are_of_entries_in_hand_only() -> None:
    ledger = Ledger()
    ledger.open(BULK, size(b"1-0"), [b"a"], attempts=2)

    assert (ledger.attempts(BULK, b"1-0"), ledger.attempts(INTERACTIVE, b"1-0")) == (2, 0)
    ledger.set_attempts(BULK, b"1-0", 1)
    ledger.set_attempts(BULK, b"9-0", 1)
    assert (ledger.attempts(BULK, b"1-0"), ledger.attempts(BULK, b"9-0")) == (1, 0)
    ledger.drop(BULK, b"1-0")
    ledger.drop(BULK, b"1-0")
    assert not ledger.holds(BULK, b"1-0")


def test_counts_are_unsent_until_they_are_marked_and_no_count_is_lost_in_between() -> None:
    progress = Progress()
    progress.count(rows=2, batches=1)
    sent = progress.unsent()
    progress.count(rows=3)

    progress.mark_sent(sent)

    assert sent == {"rows": 2, "batches": 1}
    assert progress.unsent() == {"rows": 3}
    assert progress.rows_done == 5


def test_truncation_is_counted_every_time_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    progress = Progress()
    with caplog.at_level(logging.WARNING):
        progress.count_truncated(512)
        progress.count_truncated(512)

    assert progress.unsent() == {"truncated": 2}
    assert [record.getMessage().count("512") for record in caplog.records] == [1]
