"""Rows that take their workers down: who had begun them runs them alone, three times at most, and nobody else pays."""

from typing import Any

import pytest
import redis

from producer.wire import scripts
from producer.wire.codec import decode_job, encode_header
from producer.wire.keys import GROUP, Kind, Lane
from producer.wire.messages import FailureReply, JobHeader, Row
from tests.unit.engine import Died, Shift, add_job, dead_letters, lane_is_empty, reply_of, send
from tests.unit.fakes import CHANNEL, EMBED_QUEUE, RERANK_QUEUE, WIDE, query, result_of, run_script
from workers.streams import Streams

GOOD = [query(text) for text in "abcdef"]
BAD = query("deadly")


def shift_that_dies(client: redis.Redis, *deadly: str, **options: Any) -> Shift:
    """Another worker process in the same place, for which these texts are deadly."""
    shift = Shift(client, **options)
    shift.task.deadly = set(deadly)
    return shift


def deliveries(client: redis.Redis, lane: Lane = Lane.INTERACTIVE) -> list[int]:
    pending: Any = client.xpending_range(EMBED_QUEUE.lane(lane), GROUP, "-", "+", 100)
    return [one["times_delivered"] for one in pending]


def lives(client: redis.Redis, *deadly: str, **options: Any) -> list[Shift]:
    """Let one process after the other work and die, until one lives to the end of its work."""
    shifts = []
    for _ in range(60):
        shifts.append(shift_that_dies(client, *deadly, **options))
        try:
            shifts[-1].work()
        except Died:
            continue
        return shifts
    raise AssertionError("they all died")


def test_a_deadly_row_is_tried_three_times_and_only_the_first_time_in_company(client: redis.Redis) -> None:
    send(client, *GOOD[:3], BAD, *GOOD[3:])

    shifts = lives(client, BAD.text)

    tries = [batch for shift in shifts for batch in shift.task.tried]
    assert [len(batch) > 1 for batch in tries if BAD.text in batch] == [True, False, False]
    assert len(shifts) == 4
    assert all(reply_of(client, row) == result_of(row) for row in GOOD)
    assert lane_is_empty(client, Lane.INTERACTIVE)


def test_its_dead_letter_says_why_and_its_callers_are_told(client: redis.Redis) -> None:
    send(client, BAD)

    lives(client, BAD.text)

    (letter,) = dead_letters(client)
    assert (letter[b"dead:code"], letter[b"dead:deliveries"]) == (b"worker_died", b"3")
    assert b"3 times a worker died or hung" in letter[b"dead:reason"]
    assert decode_job({name: value for name, value in letter.items() if b":" not in name}).rows == (BAD,)
    reply = reply_of(client, BAD)
    assert isinstance(reply, FailureReply)
    assert reply.code == "worker_died"


def test_the_innocent_in_hand_of_dying_workers_never_reach_the_limit(client: redis.Redis) -> None:
    """Twelve deadly rows among innocent ones in one worker's hand: dozens of deaths, and just twelve dead letters."""
    deadly = [query(f"deadly {number}") for number in range(12)]
    innocent = [query(f"innocent {number}") for number in range(40)]
    mixed = [row for pair in zip(deadly, innocent, strict=False) for row in pair] + innocent[12:]
    send(client, *mixed)

    lives(client, *(row.text for row in deadly), batch_tokens=4)

    assert {letter[b"0"].decode() for letter in dead_letters(client)} == {row.text for row in deadly}
    assert len(dead_letters(client)) == 12
    assert all(reply_of(client, row) == result_of(row) for row in innocent)
    assert lane_is_empty(client, Lane.INTERACTIVE)


def test_the_attempt_is_noted_before_the_row_runs(client: redis.Redis) -> None:
    send(client, BAD)

    seen = []
    for _ in range(3):
        with pytest.raises(Died):
            shift_that_dies(client, BAD.text).work()
        seen.append(deliveries(client))

    assert seen == [[1], [2], [3]]


def test_a_row_that_kills_when_it_is_measured_dies_too(client: redis.Redis) -> None:
    send(client, BAD, GOOD[0])
    for _ in range(10):
        shift = Shift(client)
        shift.task.deadly_to_measure = {BAD.text}
        try:
            shift.work()
            break
        except Died:
            continue

    assert [letter[b"0"] for letter in dead_letters(client)] == [b"deadly"]
    assert reply_of(client, GOOD[0]) == result_of(GOOD[0])


def test_of_a_job_of_many_rows_just_the_deadly_ones_die(client: redis.Redis) -> None:
    rows = [GOOD[0], BAD, GOOD[1], query("deadly, too"), GOOD[2]]
    fields = {b"%d" % number: row.text.encode() for number, row in enumerate(rows)}
    add_job(client, {b"job": encode_header(JobHeader(kind=Kind.QUERY, budget_ms=60_000)), **fields})

    shifts = lives(client, BAD.text, "deadly, too")

    assert [letter[b"0"] for letter in dead_letters(client)] == [b"deadly", b"deadly, too"]
    assert all(reply_of(client, row) == result_of(row) for row in GOOD[:3])
    assert lane_is_empty(client, Lane.INTERACTIVE)
    assert len(shifts) < 10


def test_a_row_that_failed_before_its_worker_died_of_another_is_not_tried_again(client: redis.Redis) -> None:
    fields = {b"0": b"broken", b"1": b"deadly"}
    add_job(client, {b"job": encode_header(JobHeader(kind=Kind.QUERY, budget_ms=60_000)), **fields})
    tried = []
    for _ in range(10):
        shift = shift_that_dies(client, BAD.text)
        shift.task.broken = {"broken"}
        try:
            shift.work()
            break
        except Died:
            continue
        finally:
            tried += shift.task.tried

    assert tried.count(["broken"]) == 1
    assert [letter[b"0"] for letter in dead_letters(client)] == [b"broken", b"deadly"]


def test_trouble_with_redis_makes_no_suspects(client: redis.Redis, shift: Shift) -> None:
    send(client, *GOOD[:3])
    shift.streams.fail_once("finish", redis.ResponseError("OOM command not allowed"))

    shift.work()

    assert shift.task.tried == [["a", "b", "c"], ["a", "b", "c"]]
    assert dead_letters(client) == []


def test_a_suspect_whose_results_cannot_be_written_is_tried_as_often_as_it_takes(client: redis.Redis) -> None:
    send(client, BAD)
    with pytest.raises(Died):
        shift_that_dies(client, BAD.text).work()
    shift = Shift(client)
    shift.streams.fail("finish", redis.ResponseError("OOM command not allowed"), times=4)

    shift.work()

    assert shift.task.tried == [["deadly"]] * 5
    assert reply_of(client, BAD) == result_of(BAD)
    assert dead_letters(client) == []


def test_what_is_handed_back_unbegun_is_no_suspect(client: redis.Redis) -> None:
    first = Shift(client, name="first", row_by_row=True)
    first.task.on_run = first.stopping.set
    send(client, *GOOD[:4])
    first.work()
    assert deliveries(client) == [0, 0, 0]

    second = Shift(client, name="second")
    second.work()

    assert second.task.tried == [["b", "c", "d"]]


def test_a_suspect_that_is_handed_back_stays_one(client: redis.Redis) -> None:
    send(client, GOOD[0], BAD, GOOD[1])
    with pytest.raises(Died):
        shift_that_dies(client, BAD.text).work()
    stopped = Shift(client)
    stopped.task.on_run = stopped.stopping.set
    stopped.work()

    last = Shift(client, name="last")
    last.work()

    assert stopped.task.tried == [["a"]]
    assert last.task.tried == [["deadly"], ["b"]]


def test_a_suspect_that_somebody_else_has_ended_is_left_alone(client: redis.Redis) -> None:
    send(client, *GOOD[:2])
    with pytest.raises(Died):
        shift_that_dies(client, "a", row_by_row=True).work()
    shift = Shift(client)

    def end_the_other() -> None:
        stream = EMBED_QUEUE.lane(Lane.INTERACTIVE)
        found: Any = client.xrange(stream)
        (other,) = [id_ for id_, fields in found if fields[b"0"] == b"b"]
        client.xack(stream, GROUP, other)
        client.xdel(stream, other)

    shift.task.on_run = end_the_other
    shift.work()

    assert shift.task.tried == [["a"]]
    assert lane_is_empty(client, Lane.INTERACTIVE)


def test_a_failing_batch_is_halved_until_the_culprit_is_alone(client: redis.Redis, shift: Shift) -> None:
    rows = [query(f"row {number}") for number in range(16)]
    shift.task.broken = {"row 5"}
    send(client, *rows)

    shift.work()

    assert [len(batch) for batch in shift.task.tried] == [16, 8, 4, 4, 2, 1, 1, 2, 8]
    assert [letter[b"0"] for letter in dead_letters(client)] == [b"row 5"]
    assert all(reply_of(client, row) == result_of(row) for row in rows if row.text != "row 5")


def test_a_forfeited_hand_is_read_again(client: redis.Redis) -> None:
    """After standing still for longer than the lease, a worker runs what is left to it and nothing of the others'."""
    send(client, *GOOD[:3])
    stream = EMBED_QUEUE.lane(Lane.INTERACTIVE)
    shift = Shift(client, row_by_row=True)

    def lose_the_others() -> None:
        shift.task.on_run = lambda: None
        shift.ledger.forfeited = True
        pending: Any = client.xpending_range(stream, GROUP, "-", "+", 10)
        client.xclaim(stream, GROUP, "other", 0, [one["message_id"] for one in pending[1:]])

    shift.task.on_run = lose_the_others
    shift.work()

    assert shift.task.tried == [["a"]]
    pending: Any = client.xpending_range(stream, GROUP, "-", "+", 10)
    assert [one["consumer"] for one in pending] == [b"other", b"other"]


def test_a_worker_ends_after_so_many_rows_and_hands_the_rest_back(client: redis.Redis) -> None:
    send(client, *GOOD)
    shift = Shift(client, row_by_row=True, most_rows=2.5)

    shift.work()

    assert shift.task.tried == [["a"], ["b"], ["c"]]
    assert deliveries(client) == [0, 0, 0]


def enqueue_again(client: redis.Redis, row: Row) -> list[int]:
    header = JobHeader(kind=row.kind, budget_ms=60_000)
    call = scripts.enqueue(EMBED_QUEUE, Lane.INTERACTIVE, header, [row], channel=CHANNEL, limit=WIDE)
    numbers: list[int] = run_script(client, call)
    return numbers


def test_a_dead_row_that_is_asked_for_again_starts_anew(client: redis.Redis) -> None:
    send(client, BAD)
    lives(client, BAD.text)

    assert enqueue_again(client, BAD)[0] == 1
    Shift(client).work()

    assert reply_of(client, BAD) == result_of(BAD)


def job_of_many(client: redis.Redis, *texts: str) -> None:
    fields = {b"%d" % number: text.encode() for number, text in enumerate(texts)}
    add_job(client, {b"job": encode_header(JobHeader(kind=Kind.QUERY, budget_ms=60_000)), **fields})


def test_orderly_stops_between_the_rows_of_a_suspect_condemn_nobody(client: redis.Redis) -> None:
    """Each process finishes one row and is stopped: what it handed back has not failed."""
    job_of_many(client, "a", "b", "c", "d")
    with pytest.raises(Died):
        shift_that_dies(client, "a").work()
    for _ in range(4):
        shift = Shift(client)
        shift.task.on_run = shift.stopping.set
        shift.work()

    assert dead_letters(client) == []
    assert all(reply_of(client, row) == result_of(row) for row in GOOD[:4])
    assert lane_is_empty(client, Lane.INTERACTIVE)


def test_a_finished_row_leaves_no_attempt_to_the_next_one(client: redis.Redis) -> None:
    job_of_many(client, "a", "b")
    for _ in range(2):
        with pytest.raises(Died):
            shift_that_dies(client, "a").work()
    assert deliveries(client) == [2]
    shift = Shift(client)
    seen: list[list[int]] = []
    shift.task.on_run = lambda: seen.append(deliveries(client))

    shift.work()

    assert shift.task.tried == [["a"], ["b"]]
    assert seen == [[3], [2]], "the second row begins anew, but alone"


def test_a_condemned_row_whose_letter_cannot_be_written_kills_nobody_else(client: redis.Redis) -> None:
    send(client, BAD)
    for _ in range(3):
        with pytest.raises(Died):
            shift_that_dies(client, BAD.text).work()
    shift = shift_that_dies(client, BAD.text)
    shift.streams.fail("bury", redis.ResponseError("OOM command not allowed"), times=3)

    shift.work()

    assert shift.task.tried == []
    assert [letter[b"0"] for letter in dead_letters(client)] == [b"deadly"]


def test_a_condemned_row_is_buried_even_if_nobody_waits_any_more(client: redis.Redis) -> None:
    add_job(client, {b"job": encode_header(JobHeader(kind=Kind.QUERY, budget_ms=1)), b"0": b"deadly"}, entry_id="5-1")
    stream = EMBED_QUEUE.lane(Lane.INTERACTIVE)
    client.xgroup_create(stream, GROUP, id="0")
    client.xreadgroup(GROUP, "worker", {stream: ">"})
    client.xclaim(stream, GROUP, "worker", 0, [b"5-1"], retrycount=3, justid=True)

    shift = Shift(client)
    shift.work()

    assert [letter[b"dead:code"] for letter in dead_letters(client)] == [b"worker_died"]
    assert "expired" not in shift.counts


def test_after_trouble_with_redis_others_get_a_lease_to_renew(client: redis.Redis, shift: Shift) -> None:
    """Nobody could renew meanwhile: whoever is back first would take the rows of all the others for abandoned."""
    asked: list[int] = []

    def take_over(idle_ms: int, _rows: Any) -> list[Any]:
        asked.append(idle_ms)
        return []

    setattr(shift.streams, "take_over", take_over)  # noqa: B010 - of this one only
    send(client, GOOD[0])
    shift.streams.fail_once("read_new", redis.ConnectionError("gone"))

    shift.work()

    assert shift.task.tried == [["a"]]
    assert asked == [8000], "before the trouble, and not again"


def test_what_a_dead_worker_had_in_hand_is_run_during_an_unending_flood(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New rows are read until there is no room for more: what is taken over must not wait until they end."""
    monkeypatch.setattr("workers.runner._TAKE_OVERS_PER_LEASE", 1e9)
    dead, shift = Streams(client, EMBED_QUEUE, "dead"), Shift(client, batch_tokens=4, tokens_per_s=1.0)
    abandoned: list[str] = []

    def flood() -> None:
        batches = len(shift.task.batches)
        if batches < 80:
            send(client, *(query(f"{batches} {number}") for number in range(10)), lane=Lane.BULK)
        if batches == 50:
            (entry,) = dead.read_new({Lane.BULK: 1})
            abandoned.extend(row.text for row in decode_job(entry.fields).rows)
            dead.hand_back({(Lane.BULK, entry.id): 1})

    shift.task.on_run = flood
    send(client, query("first"), lane=Lane.BULK)

    shift.work()

    assert abandoned in shift.task.batches[50:60]


def test_rows_whose_time_ends_while_they_are_in_hand_are_not_run(client: redis.Redis) -> None:
    shift = Shift(client, row_by_row=True)
    send(client, *GOOD[:4])
    shift.task.on_run = lambda: setattr(shift.streams, "_clock_offset_ms", shift.streams._clock_offset_ms + 120_000)
    for row in GOOD[:4]:
        client.delete(EMBED_QUEUE.wait(row.digest))  # nobody who came later waits

    shift.work()

    assert shift.task.tried == [["a"]]
    assert shift.counts["expired"] == 3
    assert lane_is_empty(client, Lane.INTERACTIVE)


def test_a_forfeited_hand_is_not_handed_back(client: redis.Redis) -> None:
    """The entries are somebody else's by now, who may be at work on them."""
    send(client, *GOOD[:3])
    stream = EMBED_QUEUE.lane(Lane.INTERACTIVE)
    shift = Shift(client, row_by_row=True)

    def lose_all_and_stop() -> None:
        shift.ledger.forfeited = True
        pending: Any = client.xpending_range(stream, GROUP, "-", "+", 10)
        client.xclaim(stream, GROUP, "other", 0, [one["message_id"] for one in pending])
        shift.stopping.set()

    shift.task.on_run = lose_all_and_stop
    shift.work()

    pending: Any = client.xpending_range(stream, GROUP, "-", "+", 10)
    assert [one["consumer"] for one in pending] == [b"other", b"other"]
    assert shift.ledger.entry_ids(Lane.INTERACTIVE) == []


def test_all_jobs_in_hand_are_read_again_whatever_their_rows(client: redis.Redis) -> None:
    """A rerank job may have one row or a hundred."""
    streams = Streams(client, RERANK_QUEUE, "worker")
    streams.prepare()
    for job in range(7):
        fields: Any = {b"job": b"header", **{b"%d" % row: b"text" for row in range(10)}}
        client.xadd(RERANK_QUEUE.lane(Lane.INTERACTIVE), fields | {b"0": b"%d" % job})
    assert len(streams.read_new({Lane.INTERACTIVE: 100})) == 7

    assert len(streams.read_own(256)) == 7
    assert len(streams.read_own(25)) == 3, "about so many rows"
    other = Streams(client, RERANK_QUEUE, "other")
    assert len(other.take_over(0, {Lane.INTERACTIVE: 64, Lane.BULK: 64})) == 7
