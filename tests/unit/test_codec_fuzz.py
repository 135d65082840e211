"""The codec for any bytes at all: it decodes or says that they are malformed, and gives back what it was given."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from producer.errors import MalformedMessage
from producer.wire.codec import (
    HEADER_FIELD,
    MAX_BUDGET_MS,
    MAX_ROWS_PER_JOB,
    decode_job,
    decode_message,
    decode_reply,
    encode_header,
    encode_message,
    encode_reply,
    is_result,
)
from producer.wire.keys import Kind
from producer.wire.messages import (
    EmbeddingReply,
    FailureReply,
    Heartbeat,
    Job,
    JobHeader,
    ModelCard,
    Reply,
    Row,
    ScoreReply,
)
from producer.wire.models import TASKS
from tests.fuzzing import DATA, ENTRIES, STEADY, Fields

thoroughly = settings(STEADY, max_examples=200)

MALICIOUS = {
    "an array that says it has 4 billion items": b"\xdd\xff\xff\xff\xff",
    "a map that says it has 4 billion items": b"\xdf\xff\xff\xff\xff",
    "a string that says it has 4 GB": b"\xdb\xff\xff\xff\xff",
    "an extension that says it has 4 GB": b"\xc9\xff\xff\xff\xff\x01",
    "a timestamp": b"\x81\xa1v\xd6\xff\x00\x00\x00\x00",
    "arrays in arrays": b"\x91" * 100_000,
    "maps in maps": b"\x81\xa1v" * 100_000,
    "a map as the name of a field": b"\x81\x80\x01",
    "an array as the name of a field": b"\x81\x90\x01",
    "two messages": b"\x81\xa1v\x01\x81\xa1v\x01",
    "a surrogate": b"\x81\xa1v\xa3\xed\xa0\x80",
    "a name that is not UTF-8": b"\x81\xa1\xff\x01",
    "a version of 64 bits": b"\x81\xa1v\xcf" + b"\xff" * 8,
    "a name of bytes": b"\x81\xc4\x01v\x01",
}

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
COUNTS = st.integers(-(2**63), 2**64 - 1)
FLOATS = st.floats(allow_nan=False)


def messages(cls: type[Any], **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any message of a class, by the types of its fields."""
    by_type: dict[Any, st.SearchStrategy[Any]] = {str: TEXTS, int: COUNTS, float: FLOATS, bool: st.booleans()}
    fields = {name: by_type[annotation] for name, annotation in cls.__annotations__.items() if annotation in by_type}
    return st.builds(cls, **{**fields, **fixed})


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Any job that a producer could send."""
    kind = draw(st.sampled_from(Kind))
    query = draw(TEXTS) if kind is Kind.PAIR else None
    header = JobHeader(kind=kind, budget_ms=draw(st.integers(1, MAX_BUDGET_MS)), query=query)
    texts = draw(st.lists(TEXTS, min_size=1, max_size=MAX_ROWS_PER_JOB))
    return Job(header=header, rows=tuple(Row(kind=kind, text=text, query=query) for text in texts))


REPLIES: st.SearchStrategy[Reply] = st.one_of(
    st.builds(EmbeddingReply, vector=st.binary(min_size=1, max_size=16).map(lambda part: part * 4)),
    st.builds(ScoreReply, score=st.floats(allow_nan=False, allow_infinity=False)),
    st.builds(FailureReply, code=TEXTS, message=TEXTS, failed_at_ms=COUNTS),
)


def decode_all(data: bytes) -> None:
    """Decode the bytes as each message there is, in turn."""
    with suppress(MalformedMessage):
        assert is_result(data) == (not isinstance(decode_reply(data), FailureReply))
    with suppress(MalformedMessage):
        decode_job({HEADER_FIELD: data, b"0": b"text"})
    with suppress(MalformedMessage):
        decode_message(ModelCard, data)
    with suppress(MalformedMessage):
        decode_message(Heartbeat, data)


@thoroughly
@given(DATA)
@example(b"")
def test_any_bytes_decode_or_are_malformed(data: bytes) -> None:
    decode_all(data)


@pytest.mark.parametrize("data", MALICIOUS.values(), ids=MALICIOUS.keys())
def test_bytes_made_to_hurt_are_malformed(data: bytes) -> None:
    decode_all(data)
    assert not is_result(data)
    with pytest.raises(MalformedMessage):
        decode_reply(data)
    with pytest.raises(MalformedMessage):
        decode_job({HEADER_FIELD: data, b"0": b"text"})


@thoroughly
@given(st.sampled_from([ModelCard, Heartbeat]), st.data())
def test_a_message_with_flipped_bits_decodes_or_is_malformed(cls: type[Any], data: st.DataObject) -> None:
    fixed = {"task": st.sampled_from(TASKS)} if cls is ModelCard else {}
    packed = bytearray(encode_message(data.draw(messages(cls, **fixed))))
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    decode_all(bytes(packed[: data.draw(st.integers(0, len(packed)))]))
    decode_all(bytes(packed))


@thoroughly
@given(ENTRIES)
@example(((HEADER_FIELD, b""),))
def test_any_entry_is_a_job_or_malformed(entry: Fields) -> None:
    with suppress(MalformedMessage):
        job = decode_job(dict(entry))
        assert 1 <= len(job.rows) <= MAX_ROWS_PER_JOB
        assert all(len(row.digest) == 16 for row in job.rows)


@thoroughly
@given(jobs())
def test_a_job_comes_back_as_it_was(job: Job) -> None:
    rows = {b"%d" % number: row.text.encode() for number, row in enumerate(job.rows)}

    assert decode_job({HEADER_FIELD: encode_header(job.header), **rows}) == job


@thoroughly
@given(REPLIES)
def test_a_reply_comes_back_as_it_was(reply: Reply) -> None:
    assert decode_reply(encode_reply(reply)) == reply


@thoroughly
@given(messages(ModelCard, task=st.sampled_from(TASKS)) | messages(Heartbeat))
def test_a_message_comes_back_as_it_was(message: Any) -> None:
    assert decode_message(type(message), encode_message(message)) == message
