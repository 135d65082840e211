"""The encoding of every message: golden bytes, round trips, and what is refused with which error."""

import random
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest

from producer.errors import MalformedMessage, UnsupportedVersion
from producer.wire import codec
from producer.wire.codec import (
    decode_job,
    decode_message,
    decode_reply,
    decode_vectors,
    encode_header,
    encode_message,
    encode_reply,
)
from producer.wire.keys import Kind
from producer.wire.messages import EmbeddingReply, FailureReply, Heartbeat, JobHeader, ModelCard, Reply, Row, ScoreReply

CARD = ModelCard(
    task="embed",
    model="offline",
    dimension=384,
    max_tokens=256,
    weights_sha256="ab",
    query_prefix="query: ",
    passage_prefix="",
    batch_invariant=True,
    method="int8 static",
)
BEAT = Heartbeat(
    model="offline",
    model_loaded=True,
    dimension=384,
    host="h",
    pid=7,
    state="running",
    in_flight_rows=1,
    rows_done=2,
    rows_per_s=1.5,
    started_at_ms=3,
    beat_at_ms=4,
    progressed_at_ms=5,
    batch_limit_ms=6,
)
GOLDEN_CARD = (
    b"\x8a\xa1v\x01\xa4task\xa5embed\xa5model\xa7offline\xa9dimension\xcd\x01\x80\xaamax_tokens\xcd\x01\x00"
    b"\xaeweights_sha256\xa2ab\xacquery_prefix\xa7query: \xaepassage_prefix\xa0\xafbatch_invariant\xc3"
    b"\xa6method\xabint8 static"
)
GOLDEN_BEAT = (
    b"\x8e\xa1v\x01\xa5model\xa7offline\xacmodel_loaded\xc3\xa9dimension\xcd\x01\x80\xa4host\xa1h\xa3pid\x07"
    b"\xa5state\xa7running\xaein_flight_rows\x01\xa9rows_done\x02\xaarows_per_s\xcb?\xf8\x00\x00\x00\x00\x00\x00"
    b"\xadstarted_at_ms\x03\xaabeat_at_ms\x04\xb0progressed_at_ms\x05"
    b"\xaebatch_limit_ms\x06"
)
GOLDEN_REPLIES: list[tuple[Reply, bytes]] = [
    (codec.encode_vector(np.array([1.0, -2.0])), b"\x82\xa1v\x01\xa6vector\xc4\x08\x00\x00\x80?\x00\x00\x00\xc0"),
    (ScoreReply(score=0.5), b"\x82\xa1v\x01\xa5score\xcb?\xe0\x00\x00\x00\x00\x00\x00"),
    (
        FailureReply(code="model_failed", message="m", failed_at_ms=1_700_000_000_000),
        b"\x84\xa1v\x01\xa5error\xacmodel_failed\xa7message\xa1m\xacfailed_at_ms\xcf\x00\x00\x01\x8b\xcf\xe5h\x00",
    ),
]
PASSAGE_HEADER = b"\x83\xa1v\x01\xa4kind\xa7passage\xa9budget_ms\xcdu0"
PAIR_HEADER = b"\x84\xa1v\x01\xa4kind\xa4pair\xa9budget_ms\x01\xa5query\xa2q?"


def packed(**body: Any) -> bytes:
    data: bytes = msgpack.packb({"v": 1, **body})
    return data


def job_of(**body: Any) -> dict[bytes, bytes]:
    return {b"job": packed(**{"kind": "query", "budget_ms": 5, **body}), b"0": b"text"}


def test_the_bytes_of_version_1_are_fixed() -> None:
    assert encode_header(JobHeader(kind=Kind.PASSAGE, budget_ms=30_000)) == PASSAGE_HEADER
    assert encode_header(JobHeader(kind=Kind.PAIR, budget_ms=1, query="q?")) == PAIR_HEADER
    assert [encode_reply(reply) for reply, _ in GOLDEN_REPLIES] == [data for _, data in GOLDEN_REPLIES]
    assert encode_message(CARD) == GOLDEN_CARD
    assert encode_message(BEAT) == GOLDEN_BEAT


def test_the_golden_bytes_read_back() -> None:
    assert [decode_reply(data) for _, data in GOLDEN_REPLIES] == [reply for reply, _ in GOLDEN_REPLIES]
    assert decode_message(ModelCard, GOLDEN_CARD) == CARD
    assert decode_message(Heartbeat, GOLDEN_BEAT) == BEAT


def test_a_job_of_one_text_reads_back() -> None:
    job = decode_job({b"job": PASSAGE_HEADER, b"0": "ein Bächlein".encode()})

    assert job.header == JobHeader(kind=Kind.PASSAGE, budget_ms=30_000)
    assert job.rows == (Row(kind=Kind.PASSAGE, text="ein Bächlein"),)


def test_a_job_of_many_documents_reads_back_in_the_order_of_the_indexes() -> None:
    documents = {b"%d" % index: b"document %d" % index for index in reversed(range(100))}

    job = decode_job({**documents, b"job": PAIR_HEADER})

    assert [row.text for row in job.rows] == [f"document {index}" for index in range(100)]
    assert {row.query for row in job.rows} == {"q?"}


@pytest.mark.parametrize("dimension", [1, 16, 63, 64, 384, 1024, 16_383, 16_384])
def test_the_short_way_to_a_vector_reads_what_the_careful_one_does(dimension: int) -> None:
    vector = bytes(range(256)) * (dimension // 64) + b"abcd" * (dimension % 64)
    data = encode_reply(EmbeddingReply(vector=vector))

    assert decode_reply(data) == EmbeddingReply(vector=vector)
    for spoilt in (data[:-1], data[:-4], data + b"\0", data + bytes(4), data[:12], data[:13], data[:14]):
        with pytest.raises(MalformedMessage):
            decode_reply(spoilt)
    with pytest.raises(MalformedMessage, match="not a row of float32"):
        decode_reply(encode_reply(EmbeddingReply(vector=vector + b"\0")))


def test_vectors_read_into_one_array_that_can_be_written() -> None:
    replies = [EmbeddingReply(vector=np.arange(n, n + 3, dtype="<f4").tobytes()) for n in range(2)]

    vectors = decode_vectors(replies)

    assert vectors.tolist() == [[0, 1, 2], [1, 2, 3]]
    assert vectors.flags.writeable
    assert vectors.dtype == np.float32
    assert decode_vectors([]).shape == (0, 0)
    with pytest.raises(MalformedMessage, match="different dimensions"):
        decode_vectors([*replies, EmbeddingReply(vector=bytes(8))])


def test_a_vector_reads_back_as_little_endian_float32_that_nobody_can_write() -> None:
    vector = np.array([[0.1, 9], [-3.5, 9]], dtype=">f8")[:, 0]

    decoded = codec.decode_vector(codec.encode_vector(vector))

    assert decoded.dtype == np.dtype("<f4")
    assert decoded.tolist() == [np.float32(0.1), -3.5]
    assert not decoded.flags.writeable


NOT_MESSAGES = {
    "empty": b"",
    "text": b"hello",
    "cut off": GOLDEN_REPLIES[0][1][:-1],
    "bytes behind": GOLDEN_REPLIES[0][1] + b"\x00",
    "nil": msgpack.packb(None),
    "list": msgpack.packb([1]),
    "empty list": msgpack.packb([]),
    "number": msgpack.packb(7),
    "number as key": msgpack.packb({"v": 1, 7: 7}),
    "no version": msgpack.packb({"score": 0.5}),
    "version is text": msgpack.packb({"v": "1", "score": 0.5}),
    "version is true": msgpack.packb({"v": True, "score": 0.5}),
    "version is float": msgpack.packb({"v": 1.0, "score": 0.5}),
    "extension type": packed(score=msgpack.ExtType(5, b"abc")),
    "extension type of fixed size": packed(score=msgpack.ExtType(5, b"abcd")),
    "timestamp": packed(error="a", message="b", failed_at_ms=msgpack.Timestamp(1, 2)),
    "text that is not UTF-8": b"\x82\xa1v\x01\xa5error\xa1\xff",
    "string of 4 GB": b"\x82\xa1v\x01\xa5error\xdb\xff\xff\xff\xff",
    "bytes of 4 GB": b"\x82\xa1v\x01\xa6vector\xc6\xff\xff\xff\xff",
    "list of 4 G items": b"\x82\xa1v\x01\xa6vector\xdd\xff\xff\xff\xff",
    "map of 4 G fields": b"\xdf\xff\xff\xff\xff",
    "map of 33 fields": msgpack.packb({f"f{n}": n for n in range(33)}),
    "maps in maps in maps": b"\x81\xa1v" * 5000,
    "lists in lists": b"\x91" * 5000,
}


@pytest.mark.parametrize("data", NOT_MESSAGES.values(), ids=NOT_MESSAGES.keys())
@pytest.mark.parametrize(
    "decode",
    [
        decode_reply,
        lambda data: decode_job({b"job": data, b"0": b"text"}),
        lambda data: decode_message(ModelCard, data),
        lambda data: decode_message(Heartbeat, data),
    ],
    ids=["reply", "job", "card", "heartbeat"],
)
def test_bytes_that_are_no_message_are_malformed_for_every_decoder(
    decode: Callable[[bytes], object], data: bytes
) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode(data)
    assert type(caught.value) is MalformedMessage


@pytest.mark.parametrize("version", [0, 2, -1, 2**40])
def test_another_version_has_an_error_of_its_own(version: int) -> None:
    with pytest.raises(UnsupportedVersion):
        decode_reply(msgpack.packb({"v": version, "score": 0.5}))
    with pytest.raises(UnsupportedVersion):
        decode_job({b"job": msgpack.packb({"v": version, "anything": "else"}), b"0": b"text"})


BAD_REPLIES = {
    "nothing in it": packed(),
    "unknown field": packed(score=0.5, extra=1),
    "vector and score": packed(score=0.5, vector=b"abcd"),
    "vector is text": packed(vector="abcd"),
    "vector is empty": packed(vector=b""),
    "vector of 5 bytes": packed(vector=b"abcde"),
    "vector is a map": packed(vector={"a": 1}),
    "vector is a list": packed(vector=[0.5]),
    "score is whole": packed(score=1),
    "score is true": packed(score=True),
    "score is text": packed(score="0.5"),
    "score is a map": packed(score={"a": {"b": 1}}),
    "score is an empty list": packed(score=[]),
    "failure without message": packed(error="a", failed_at_ms=1),
    "failure with more": packed(error="a", message="b", failed_at_ms=1, extra=1),
    "failure at half a millisecond": packed(error="a", message="b", failed_at_ms=1.5),
    "failure at true": packed(error="a", message="b", failed_at_ms=True),
    "failure code is a number": packed(error=5, message="b", failed_at_ms=1),
    "failure code is bytes": packed(error=b"a", message="b", failed_at_ms=1),
}


@pytest.mark.parametrize("data", BAD_REPLIES.values(), ids=BAD_REPLIES.keys())
def test_bad_replies_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_reply(data)


@pytest.mark.parametrize(("cls", "golden"), [(ModelCard, GOLDEN_CARD), (Heartbeat, GOLDEN_BEAT)])
def test_cards_and_heartbeats_hold_all_their_fields_of_the_right_type_and_no_others(cls: Any, golden: bytes) -> None:
    body: dict[str, Any] = msgpack.unpackb(golden)
    wrong = [{**body, "extra": 1}]
    others: list[Any] = [None, b"x", {}, []]
    for name in body.keys() - {"v"}:
        wrong += [{**body, name: other} for other in others]
        wrong.append({key: value for key, value in body.items() if key != name})

    for fields in wrong:
        with pytest.raises(MalformedMessage):
            decode_message(cls, msgpack.packb(fields))


def test_random_and_mutated_bytes_only_ever_raise_malformed_message() -> None:
    chance = random.Random(20240607)
    seeds = [data for _, data in GOLDEN_REPLIES] + [PASSAGE_HEADER, PAIR_HEADER, GOLDEN_CARD]
    valid = 0
    for _ in range(2000):
        data = bytearray(chance.choice(seeds) if chance.random() < 0.85 else chance.randbytes(chance.randrange(40)))
        for _ in range(chance.randrange(4)):
            _mutate(data, chance)
        for decode in (decode_reply, lambda data: decode_job({b"job": data, b"0": b"text"})):
            try:
                _check_valid(decode(bytes(data)))
                valid += 1
            except MalformedMessage:
                pass
    assert valid > 100, "the inputs must not all be refused for one trivial reason"


def _mutate(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data) + 1)
    match chance.randrange(4):
        case 0:
            data[place:place] = chance.randbytes(chance.randrange(4))
        case 1:
            del data[place : place + chance.randrange(1, 5)]
        case 2 if place < len(data):
            data[place] = chance.randrange(256)
        case _ if place < len(data):
            data[place] ^= 1 << chance.randrange(8)


def _check_valid(message: Any) -> None:
    """What a decoder lets through must be usable, not only an object."""
    if isinstance(message, EmbeddingReply):
        assert codec.decode_vector(message).size > 0
    elif not isinstance(message, ScoreReply | FailureReply):
        assert 0 < message.header.budget_ms <= codec.MAX_BUDGET_MS
        assert all(len(row.digest) == 16 for row in message.rows)
