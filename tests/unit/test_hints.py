"""Hints to mailboxes, mailboxes to waiting calls, and the counters that travel with other commands."""

import asyncio
import threading

import pytest

from producer.aio_listener import TaskMailbox
from producer.counters import Counters
from producer.hints import Switchboard
from producer.listener import ThreadMailbox
from tests.unit.fakes import EMBED_QUEUE, RERANK_QUEUE, ManualClock, redis_in_memory

A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


class Letters:
    """A mailbox that keeps what arrives."""

    def __init__(self) -> None:
        self.digests: list[bytes] = []

    def deliver(self, digest: bytes) -> None:
        self.digests.append(digest)


def test_a_hint_is_cut_into_digests_for_those_who_watch_them() -> None:
    board, one, two = Switchboard(), Letters(), Letters()
    board.watch(one, [A, B])
    board.watch(two, [C])

    board.deliver(A + B + C)

    assert (one.digests, two.digests) == ([A, B], [C])


def test_two_mailboxes_on_one_digest_both_hear_of_it() -> None:
    board, one, two = Switchboard(), Letters(), Letters()
    board.watch(one, [A])
    board.watch(two, [A])

    board.deliver(A)

    assert (one.digests, two.digests) == ([A], [A])


def test_a_row_is_ready_once() -> None:
    board, one = Switchboard(), Letters()
    board.watch(one, [A])

    board.deliver(A)
    board.deliver(A + A)
    assert one.digests == [A]

    board.watch(one, [A])
    board.deliver(A)
    assert one.digests == [A, A], "a row that is watched again is delivered again"


def test_unwatching_ends_one_mailbox_and_not_the_other() -> None:
    board, one, two = Switchboard(), Letters(), Letters()
    board.watch(one, [A, B])
    board.watch(two, [A])

    board.unwatch(one)
    board.unwatch(one)
    board.deliver(A + B)

    assert (one.digests, two.digests) == ([], [A])


@pytest.mark.parametrize("hint", [b"", C, b"short", A[:15], b"x" + C])
def test_hints_that_nobody_waits_for_or_that_are_cut_are_harmless(hint: bytes) -> None:
    board, one = Switchboard(), Letters()
    board.watch(one, [A])

    board.deliver(hint)
    assert one.digests == []

    board.deliver(A + b"rest")
    assert one.digests == [A]


def test_a_switchboard_remembers_nothing_of_calls_that_are_over() -> None:
    board = Switchboard()
    for number in range(100):
        mailbox = Letters()
        board.watch(mailbox, [A, b"%16d" % number])
        board.deliver(A)
        board.unwatch(mailbox)

    assert (board._watchers, board._watched) == ({}, {})


def test_a_long_call_does_not_gather_the_rows_that_it_has_heard_of() -> None:
    board, mailbox = Switchboard(), Letters()
    for number in range(100):
        digest = b"%16d" % number
        board.watch(mailbox, [digest])
        board.deliver(digest)

    assert (board._watchers, board._watched.get(mailbox, set())) == ({}, set())


def test_a_thread_mailbox_gives_all_hints_since_the_last_time_once() -> None:
    mailbox = ThreadMailbox()
    mailbox.deliver(A)
    mailbox.deliver(B)
    mailbox.deliver(A)

    assert mailbox.wait(60) == {A, B}
    assert mailbox.wait(0) == set()


def test_a_thread_mailbox_wakes_its_waiter() -> None:
    mailbox, found = ThreadMailbox(), []
    waiter = threading.Thread(target=lambda: found.append(mailbox.wait(60)))
    waiter.start()

    mailbox.deliver(A)
    waiter.join(timeout=30)

    assert found == [{A}]


def test_a_task_mailbox_does_the_same() -> None:
    async def scenario() -> list[set[bytes]]:
        mailbox = TaskMailbox()
        mailbox.deliver(A)
        first, second = await mailbox.wait(60), await mailbox.wait(0)
        waiter = asyncio.create_task(mailbox.wait(60))
        await asyncio.sleep(0)
        mailbox.deliver(B)
        return [first, second, await waiter]

    assert asyncio.run(scenario()) == [{A}, set(), {B}]


def test_counters_are_due_after_an_interval_and_only_if_something_was_counted() -> None:
    clock = ManualClock()
    counters = Counters(clock)

    clock.advance(60)
    assert counters.take_due() == {}

    counters.add(EMBED_QUEUE, 2, 0)
    counters.add(EMBED_QUEUE, 3, 1)
    assert counters.take_due() == {(EMBED_QUEUE.stats, "hits"): 5, (EMBED_QUEUE.stats, "misses"): 1}

    counters.add(EMBED_QUEUE, 1, 0)
    clock.advance(1)
    assert counters.take_due() == {}
    clock.advance(60)
    assert counters.take_due() == {(EMBED_QUEUE.stats, "hits"): 1}


def test_counters_may_be_taken_before_their_time_and_are_taken_once() -> None:
    counters = Counters(ManualClock())
    counters.add(RERANK_QUEUE, 0, 4)

    assert counters.take_due(force=True) == {(RERANK_QUEUE.stats, "misses"): 4}
    assert counters.take_due(force=True) == {}


def test_counters_add_up_in_redis() -> None:
    client, counters = redis_in_memory(), Counters(ManualClock())
    for _ in range(2):
        counters.add(EMBED_QUEUE, 2, 3)
        with client.pipeline(transaction=False) as pipeline:
            counters.write(pipeline, counters.take_due(force=True))
            pipeline.execute()

    assert client.hgetall(EMBED_QUEUE.stats) == {b"hits": b"4", b"misses": b"6"}
