"""The script that enqueues, on an in-memory Redis: single flight, two lanes, admission, leases; as one step."""

import pytest
import redis

from producer.wire import scripts
from producer.wire.codec import decode_job
from producer.wire.keys import Lane
from tests.unit.fakes import EMBED_QUEUE, RERANK_QUEUE, pair, passage, redis_in_memory
from tests.unit.scripting import enqueue, entries, load, texts, wait_ttl_ms, waiting

INTERACTIVE, BULK = Lane.INTERACTIVE, Lane.BULK
A, B, C = passage("a"), passage("b"), passage("c")


def test_one_text_is_one_job_with_a_waiter_and_a_lease(client: redis.Redis) -> None:
    assert enqueue(client, A, B) == [2, 0, 2, 2]

    assert texts(client) == ["a", "b"]
    ids = [entry_id for entry_id, _ in entries(client)]
    assert waiting(client, A)[b"entry"] == b"interactive:" + ids[0]
    created_ms = int(ids[0].split(b"-")[0])
    assert int(waiting(client, A)[b"one"]) == pytest.approx(created_ms + 60_000, abs=1000)
    assert 60_000 < wait_ttl_ms(client, A) <= 61_000


def test_a_second_caller_attaches_and_adds_no_job(client: redis.Redis) -> None:
    enqueue(client, A)

    assert enqueue(client, A, B, channel="two") == [1, 1, 2, 2]

    assert texts(client) == ["a", "b"]
    assert waiting(client, A).keys() == {b"entry", b"one", b"two"}
    assert waiting(client, B).keys() == {b"entry", b"two"}


def test_the_same_call_again_changes_nothing_but_the_time(client: redis.Redis) -> None:
    enqueue(client, A)
    before = entries(client)

    assert enqueue(client, A) == [0, 1, 1, 1]

    assert entries(client) == before
    assert waiting(client, A).keys() == {b"entry", b"one"}


def test_a_row_whose_entry_is_gone_becomes_a_job_again_and_keeps_its_waiters(client: redis.Redis) -> None:
    enqueue(client, A)
    client.xdel(EMBED_QUEUE.lane(INTERACTIVE), *[entry_id for entry_id, _ in entries(client)])

    assert enqueue(client, A, channel="two") == [1, 0, 1, 1]

    assert waiting(client, A)[b"entry"] == b"interactive:" + entries(client)[0][0]
    assert waiting(client, A).keys() == {b"entry", b"one", b"two"}


def test_an_interactive_caller_does_not_wait_behind_the_bulk_lane(client: redis.Redis) -> None:
    enqueue(client, A, lane=BULK, channel="bulk-caller")

    assert enqueue(client, A, lane=INTERACTIVE, channel="person") == [1, 0, 1, 1]

    assert (texts(client, BULK), texts(client, INTERACTIVE)) == (["a"], ["a"])
    assert waiting(client, A)[b"entry"].startswith(b"interactive:")
    assert waiting(client, A).keys() == {b"entry", b"bulk-caller", b"person"}


def test_a_bulk_caller_attaches_to_either_lane(client: redis.Redis) -> None:
    enqueue(client, A, lane=INTERACTIVE)
    enqueue(client, B, lane=BULK)

    assert enqueue(client, A, B, lane=BULK, channel="two") == [0, 2, 1, 2]

    assert (texts(client, INTERACTIVE), texts(client, BULK)) == (["a"], ["b"])


def test_the_pairs_of_a_query_are_packed_by_the_hundred_without_those_in_flight(client: redis.Redis) -> None:
    pairs = [pair(f"d{number}") for number in range(250)]
    enqueue(client, pairs[3], pairs[120])

    assert enqueue(client, *pairs, channel="two") == [248, 2, 250, 250]

    jobs = [decode_job(fields) for _, fields in entries(client, key=RERANK_QUEUE.lane(INTERACTIVE))]
    assert [len(job.rows) for job in jobs] == [2, 100, 100, 48]
    assert {job.header.query for job in jobs} == {"q"}
    assert [row for job in jobs[1:] for row in job.rows] == [row for row in pairs if row not in jobs[0].rows]


def test_texts_of_a_hundred_rows_are_a_hundred_jobs(client: redis.Redis) -> None:
    assert enqueue(client, *(passage(f"t{number}") for number in range(100))) == [100, 0, 100, 100]


@pytest.mark.parametrize(("lane_limit", "added"), [(3, 2), (2, 0)])
def test_a_lane_that_would_be_too_full_is_left_as_it_was(client: redis.Redis, lane_limit: int, added: int) -> None:
    enqueue(client, A)
    before = (entries(client), waiting(client, A))

    assert enqueue(client, A, B, C, channel="two", lane_limit=lane_limit)[0] == added

    if not added:
        assert enqueue(client, A, B, C, channel="two", lane_limit=lane_limit) == [0, 0, 1, 0]
        assert (entries(client), waiting(client, A)) == before
        assert client.keys("*wait*") == [EMBED_QUEUE.wait(A.digest).encode()]


def test_a_nearly_full_bulk_lane_takes_the_first_rows(client: redis.Redis) -> None:
    enqueue(client, B, lane=BULK)
    d, e = passage("d"), passage("e")

    assert enqueue(client, A, B, C, d, e, lane=BULK, channel="two", lane_limit=3) == [2, 1, 3, 3]

    assert texts(client, BULK) == ["b", "a", "c"]
    assert [b"two" in waiting(client, row) for row in (A, B, C, d, e)] == [True, True, True, False, False]
    assert enqueue(client, d, e, lane=BULK, lane_limit=3) == [0, 0, 3, 0]


def test_attaching_needs_no_room_on_the_lane(client: redis.Redis) -> None:
    enqueue(client, A, B)

    assert enqueue(client, A, channel="two", lane_limit=1) == [0, 1, 2, 1]


def test_the_limit_counts_the_rows_of_the_callers_lane_only(client: redis.Redis) -> None:
    enqueue(client, A, B, lane=BULK)

    assert enqueue(client, C, lane_limit=1) == [1, 0, 1, 1]
    assert enqueue(client, *(pair(f"d{number}") for number in range(101)), lane_limit=100) == [0, 0, 0, 0]
    assert enqueue(client, *(pair(f"d{number}") for number in range(100)), lane_limit=100) == [100, 0, 100, 100]


def test_bytes_are_limited_too(client: redis.Redis) -> None:
    long, longer = passage("l" * 1000), passage("m" * 2000)
    enqueue(client, long)
    held = load(client)[1]

    assert enqueue(client, longer, lane_limit_bytes=held + 2000) == [0, 0, 1, 0], "the header counts as well"
    assert enqueue(client, longer, lane_limit_bytes=held + 2100) == [1, 0, 2, 1]

    bulk = [passage("l" * 999), passage("m" * 1999), B, C]
    assert enqueue(client, *bulk, lane=BULK, lane_limit_bytes=2998 + 2 * (held - 1000)) == [2, 0, 2, 2]
    assert texts(client, BULK) == [row.text for row in bulk[:2]]


def test_an_empty_lane_takes_one_row_whatever_its_size(client: redis.Redis) -> None:
    for lane in Lane:
        assert enqueue(client, passage(f"{lane} " * 100), lane=lane, lane_limit_bytes=10) == [1, 0, 1, 1]
        assert enqueue(client, passage(f"{lane}"), lane=lane, lane_limit_bytes=10) == [0, 0, 1, 0]


def test_the_load_counts_rows_and_the_bytes_of_all_values(client: redis.Redis) -> None:
    pairs = [pair(f"d{number}") for number in range(150)]
    enqueue(client, *pairs)
    jobs = entries(client, key=RERANK_QUEUE.lane(INTERACTIVE))

    stored = sum(len(value) for _, fields in jobs for value in fields.values())
    assert load(client, key=RERANK_QUEUE.load) == (150, stored)


def test_a_load_that_went_wrong_is_set_right_by_the_first_row_of_an_empty_lane(client: redis.Redis) -> None:
    client.hset(EMBED_QUEUE.load, mapping={"interactive:rows": 999, "interactive:bytes": -5})

    assert enqueue(client, A, lane_limit=10) == [1, 0, 1, 1]
    assert load(client)[0] == 1
    client.hset(EMBED_QUEUE.load, "interactive:rows", -7)
    assert enqueue(client, B, lane_limit=10) == [1, 0, 1, 1], "less than nothing counts as nothing"


def test_the_lease_of_a_wait_key_is_only_ever_extended(client: redis.Redis) -> None:
    enqueue(client, A, budget_ms=60_000)
    enqueue(client, A, budget_ms=1000, channel="two")
    assert wait_ttl_ms(client, A) > 59_000

    enqueue(client, A, budget_ms=600_000, channel="three")
    assert wait_ttl_ms(client, A) > 599_000


def test_the_deadline_of_a_waiter_is_only_ever_extended(client: redis.Redis) -> None:
    enqueue(client, A, budget_ms=60_000)
    deadline = waiting(client, A)[b"one"]

    enqueue(client, A, budget_ms=1000)
    assert waiting(client, A)[b"one"] == deadline

    enqueue(client, A, budget_ms=600_000)
    assert int(waiting(client, A)[b"one"]) >= int(deadline) + 540_000


def test_every_script_has_a_sha_of_its_own_source() -> None:
    names = ["enqueue", "complete", "expire"]

    assert len({scripts.script(name).sha for name in names}) == 3
    assert redis_in_memory().script_load(scripts.script("enqueue").source.decode()) == scripts.script("enqueue").sha
