"""The value of a cached search: its golden bytes, and what is refused."""

import math
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.errors import MalformedMessage, UnsupportedVersion
from producer.wire.searches import MOST_HITS, StoredHit, StoredSearch, decode_search, encode_search
from tests.fuzzing import DATA, STEADY

SEARCH = StoredSearch(
    generation=bytes(range(16)),
    found_at_ms=1_763_900_000_000,
    hits=(
        StoredHit(id=7, vector_rank=2, vector_score=0.5, rerank_score=-1.5),
        StoredHit(id="uuid", vector_rank=1, vector_score=1.0, rerank_score=None),
    ),
)
GOLDEN = (
    b"\x87\xa1v\x01\xaageneration\xc4\x10\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\x0b\x0c\r\x0e\x0f"
    b"\xabfound_at_ms\xcf\x00\x00\x01\x9a\xb0\xa2\x07\x00\xa3ids\x92\x07\xa4uuid\xacvector_ranks\x92\x02\x01"
    b"\xadvector_scores\x92\xcb?\xe0\x00\x00\x00\x00\x00\x00\xcb?\xf0\x00\x00\x00\x00\x00\x00"
    b"\xadrerank_scores\x92\xcb\xbf\xf8\x00\x00\x00\x00\x00\x00\xc0"
)


def changed(**fields: Any) -> bytes:
    data: bytes = msgpack.packb({**msgpack.unpackb(GOLDEN), **fields})
    return data


def test_the_bytes_are_fixed() -> None:
    assert encode_search(SEARCH) == GOLDEN
    assert decode_search(GOLDEN) == SEARCH


def test_no_results_are_results() -> None:
    empty = StoredSearch(generation=bytes(16), found_at_ms=0, hits=())

    assert decode_search(encode_search(empty)) == empty


REFUSED = {
    "nothing": b"",
    "no map": b"\x90",
    "cut off": GOLDEN[:-1],
    "unknown field": changed(payload=b""),
    "missing field": msgpack.packb({"v": 1, "generation": bytes(16)}),
    "short generation": changed(generation=b"x"),
    "generation of text": changed(generation="x" * 16),
    "lists of different lengths": changed(ids=[7]),
    "an id that is a list": changed(ids=[[7], 8]),
    "an id that is empty": changed(ids=["", 8]),
    "an id below zero": changed(ids=[-1, 8]),
    "an id that is true": changed(ids=[True, 8]),
    "a rank of 0": changed(vector_ranks=[0, 1]),
    "a rank of text": changed(vector_ranks=["1", 1]),
    "no vector score": changed(vector_scores=[None, 1.0]),
    "a score that is no number": changed(vector_scores=[math.nan, 1.0]),
    "an infinite rerank score": changed(rerank_scores=[math.inf, None]),
    "too many": changed(**{name: [1] * (MOST_HITS + 1) for name in ("ids", "vector_ranks")}),
    "a map for a list": changed(ids={}),
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_cached_search_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_search(data)


def test_another_version_is_told() -> None:
    with pytest.raises(UnsupportedVersion):
        decode_search(changed(v=2))


@STEADY
@given(DATA)
def test_any_bytes_are_a_search_or_malformed(data: bytes) -> None:
    try:
        assert isinstance(decode_search(data), StoredSearch)
    except MalformedMessage:
        return


@STEADY
@given(
    st.lists(
        st.builds(
            StoredHit,
            id=st.integers(0, 2**64 - 1) | st.uuids().map(str),
            vector_rank=st.integers(1, 100),
            vector_score=st.floats(allow_nan=False, allow_infinity=False),
            rerank_score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        ),
        max_size=MOST_HITS,
    )
)
def test_what_is_written_is_read(hits: list[StoredHit]) -> None:
    search = StoredSearch(generation=bytes(16), found_at_ms=1, hits=tuple(hits))

    assert decode_search(encode_search(search)) == search
