"""A hostile peer writes rubbish under the keys that a row passes, and on hint channels: it is answered all the same."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgpack
import numpy as np
import pytest

from producer import HeadraceError, Producer
from producer.wire.codec import encode_header
from producer.wire.keys import Kind, Lane
from producer.wire.messages import JobHeader
from tests.chaos.campaign import chance
from tests.chaos.rubbish import DEADLINE_S, WRONG_TYPES, Check, spoil
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import vector_of
from tests.integration.harness.site import Site, passage

CHANNEL = b"nobody:hint:0"


GARBAGE = {
    "empty": b"",
    "bytes": b"\xff\x00garbage",
    "nested": b"\x91" * 5000,
    "4 GB": b"\xdb\xff\xff\xff\xff",
    "no fields": msgpack.packb({}),
    "a later version": msgpack.packb({"v": 2, "vector": b"\0" * 32}),
    "vector of text": msgpack.packb({"v": 1, "vector": "text"}),
    "vector cut": msgpack.packb({"v": 1, "vector": b"\0" * 31}),
    "NaN": msgpack.packb({"v": 1, "score": float("nan")}),
    "failure without a time": msgpack.packb({"v": 1, "error": "x", "message": "y"}),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.usefixtures("engine")
def test_garbage_in_a_reply_key_is_a_miss(solo: Site, producer: Producer, garbage: bytes) -> None:
    key = solo.queue().reply(passage("text").digest)
    solo.client.set(key, garbage)

    assert np.array_equal(producer.embed("text", "passage"), vector_of("text"))
    assert np.array_equal(next(iter(producer.iter_embed(["text"]))), vector_of("text"))
    solo.await_empty()


@pytest.mark.parametrize("kind", sorted(WRONG_TYPES.keys() - {"string"}))
@pytest.mark.usefixtures("engine")
def test_another_type_under_a_reply_key_is_a_miss(solo: Site, producer: Producer, kind: str) -> None:
    spoil(solo, solo.queue().reply(passage("text").digest), kind)

    assert np.array_equal(producer.embed("text", "passage"), vector_of("text"))
    solo.await_empty()


@pytest.mark.usefixtures("engine")
def test_garbage_on_hint_channels_harms_nobody(solo: Site, producer: Producer, seed: int) -> None:
    producer.embed("first")
    (channel,) = solo.client.pubsub_channels(f"{solo.namespace}:hint:*")
    luck: random.Random = chance(seed, "hints")
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(
            lambda: list(producer.iter_embed([f"text {number}" for number in range(300)], window=20))
        )
        while not asked.done():
            digest = passage(f"text {luck.randrange(300)}").digest
            for hint in (b"", luck.randbytes(luck.randint(1, 100)), digest, digest[:7], digest * 50, b"x" * 100_000):
                solo.client.publish(channel, hint)
        vectors = asked.result(DEADLINE_S)

    assert all(np.array_equal(vector, vector_of(f"text {number}")) for number, vector in enumerate(vectors))


WAIT_HASHES: dict[str, dict[bytes, bytes]] = {
    "an entry of no lane": {b"entry": b"nowhere:1-1"},
    "an entry that is not there": {b"entry": b"interactive:1-1"},
    "an entry of bytes": {b"entry": b"\xff\0"},
    "a deadline that is NaN": {CHANNEL: b"nan"},
    "a channel of bytes": {b"\xff\0": b"9999999999999"},
    "an empty channel": {b"": b"9999999999999"},
}
HELD = [pytest.param(held, id=name) for name, held in WAIT_HASHES.items()]


@pytest.mark.parametrize(
    "held",
    [
        *HELD,
        pytest.param({b"entry": b"interactive:rubbish"}, id="an entry that is no id"),
        pytest.param({CHANNEL: b"soon"}, id="a deadline that is no number"),
    ],
)
@pytest.mark.usefixtures("engine")
def test_rubbish_in_a_wait_hash_does_not_keep_a_row_from_its_caller(
    solo: Site, producer: Producer, check: Check, held: dict[Any, Any]
) -> None:
    solo.client.hset(solo.queue().wait(passage("text").digest), mapping=held)

    check.answered(producer, "text")
    solo.await_empty()


@pytest.mark.parametrize(
    "held",
    [
        *HELD,
        pytest.param({b"entry": b"interactive:rubbish"}, id="an entry that is no id"),
        pytest.param({CHANNEL: b"soon"}, id="a deadline that is no number"),
    ],
)
def test_rubbish_in_the_wait_hash_of_an_old_job_does_not_stop_a_worker(
    solo: Site, check: Check, held: dict[Any, Any]
) -> None:
    solo.client.hset(solo.queue().wait(passage("old").digest), mapping=held)
    put_a_job(solo, "old", id_="1-1")

    with Engine(solo, lease_s=1.0):
        check.serving("after it")
        check.empty()


@pytest.mark.parametrize("kind", ["string", "stream"])
def test_another_type_under_a_wait_key_does_not_stop_a_worker(solo: Site, check: Check, kind: str) -> None:
    spoil(solo, solo.queue().wait(passage("text").digest), kind)
    put_a_job(solo, "text")

    with Engine(solo, lease_s=1.0):
        check.serving("after it")
        check.empty()


@pytest.mark.usefixtures("engine")
def test_another_type_under_a_wait_key_does_not_keep_a_row_from_its_caller(
    solo: Site, producer: Producer, check: Check
) -> None:
    spoil(solo, solo.queue().wait(passage("text").digest), "string")

    check.answered(producer, "text")


@pytest.mark.parametrize("kind", ["string", "hash"])
@pytest.mark.usefixtures("engine")
def test_another_type_under_the_dead_letters_does_not_stop_a_worker(solo: Site, check: Check, kind: str) -> None:
    spoil(solo, solo.queue().dead, kind)
    solo.client.xadd(solo.queue().lane(Lane.INTERACTIVE), {"rubbish": "rubbish"})

    check.serving("after it")
    check.empty()


def test_a_letter_tells_the_truth_of_an_entry_that_claims_to_be_one(solo: Site) -> None:
    claims: Any = {b"dead:entry": b"7-7", b"dead:lane": b"nowhere", b"dead:code": b"fine", b"dead:reason": b"none"}
    entry_id = solo.client.xadd(solo.queue().lane(Lane.INTERACTIVE), claims)

    with Engine(solo):
        solo.await_empty()
    found: Any = solo.client.xrange(solo.queue().dead)
    ((_, letter),) = found

    assert letter[b"dead:entry"] == entry_id
    assert letter[b"dead:lane"] == b"interactive"
    assert letter[b"dead:code"] == b"malformed_message"


@pytest.mark.parametrize("kind", ["string", "hash"])
@pytest.mark.usefixtures("engine")
def test_a_worker_serves_again_when_a_lane_is_a_lane_again(solo: Site, check: Check, kind: str) -> None:
    for lane in Lane:
        spoil(solo, solo.queue().lane(lane), kind)
    with solo.producer(timeout_s=1.0) as hasty, pytest.raises(HeadraceError):
        hasty.embed("meanwhile")
    for lane in Lane:
        solo.client.delete(solo.queue().lane(lane))
    check.forget()

    check.serving("afterwards")


def put_a_job(site: Site, text: str, *, id_: str = "*") -> None:
    """Add a good job past all producers."""
    header = encode_header(JobHeader(kind=Kind.PASSAGE, budget_ms=60_000))
    site.client.xadd(site.queue().lane(Lane.INTERACTIVE), {b"job": header, b"0": text.encode()}, id=id_)
