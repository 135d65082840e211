"""Stream entries that are not jobs: each is refused with its typed error before anything is made of it."""

from typing import Any

import msgpack
import pytest

from producer.errors import MalformedMessage
from producer.wire.codec import MAX_BUDGET_MS, MAX_ROWS_PER_JOB, decode_job


def header(**changes: Any) -> bytes:
    """A good header of a query, with fields replaced, added, or (with `...`) left out."""
    body = {"v": 1, "kind": "query", "budget_ms": 5, **changes}
    data: bytes = msgpack.packb({name: value for name, value in body.items() if value is not ...})
    return data


def test_the_header_that_the_cases_below_change_is_good() -> None:
    assert decode_job({b"job": header(), b"0": b"text"}).header.budget_ms == 5


BAD_HEADERS = {
    "no kind": header(kind=...),
    "no budget": header(budget_ms=...),
    "unknown field": header(priority=1),
    "kind nobody knows": header(kind="image"),
    "kind in capitals": header(kind="QUERY"),
    "kind is a number": header(kind=1),
    "kind is bytes": header(kind=b"query"),
    "kind is a map": header(kind={"a": 1}),
    "kind is nil": header(kind=None),
    "budget 0": header(budget_ms=0),
    "budget negative": header(budget_ms=-1),
    "budget above a day": header(budget_ms=MAX_BUDGET_MS + 1),
    "budget of 64 bits": header(budget_ms=2**64 - 1),
    "budget true": header(budget_ms=True),
    "budget a float": header(budget_ms=5.0),
    "budget NaN": header(budget_ms=float("nan")),
    "budget infinite": header(budget_ms=float("inf")),
    "budget text": header(budget_ms="5"),
    "budget nil": header(budget_ms=None),
    "budget a map": header(budget_ms={}),
    "pair without query": header(kind="pair"),
    "pair with nil as query": header(kind="pair", query=None),
    "pair with bytes as query": header(kind="pair", query=b"q"),
    "pair with a number as query": header(kind="pair", query=7),
    "text with a query": header(query="q"),
    "text with a number as query": header(query=7),
    "text with true as query": header(query=True),
    "text with bytes as query": header(query=b"q"),
    "text with a map as query": header(query={"a": 1}),
    "text with a list as query": header(query=[]),
    "query is not UTF-8": header(kind="pair", query="q").replace(b"\xa1q", b"\xa1\xff"),
}


@pytest.mark.parametrize("data", BAD_HEADERS.values(), ids=BAD_HEADERS.keys())
def test_bad_headers_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_job({b"job": data, b"0": b"text"})


def test_the_longest_budget_is_a_day() -> None:
    assert decode_job({b"job": header(budget_ms=MAX_BUDGET_MS), b"0": b"text"}).header.budget_ms == 86_400_000


def rows(*names: bytes) -> dict[bytes, bytes]:
    return dict.fromkeys(names, b"text")


BAD_ROWS: dict[str, dict[bytes, bytes]] = {
    "none": {},
    "one too many": rows(*(b"%d" % index for index in range(MAX_ROWS_PER_JOB + 1))),
    "first index missing": rows(b"1"),
    "index missing in between": rows(b"0", b"2"),
    "index with a zero in front": rows(b"00"),
    "index with a space": rows(b" 0"),
    "negative index": rows(b"-1"),
    "index in other digits": rows("\N{ARABIC-INDIC DIGIT ZERO}".encode()),
    "unknown name beside the rows": rows(b"0", b"extra"),
    "empty name": rows(b"0", b""),
    "name is not UTF-8": rows(b"0", b"\xff"),
    "text is not UTF-8": {b"0": b"\xff\xfe"},
    "text is cut inside a character": {b"0": "é".encode()[:1]},
    "text is an encoded surrogate": {b"0": b"\xed\xa0\x80"},
    "second text is not UTF-8": {b"0": b"text", b"1": b"\x80"},
}


@pytest.mark.parametrize("fields", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_bad_rows_are_malformed(fields: dict[bytes, bytes]) -> None:
    with pytest.raises(MalformedMessage):
        decode_job({b"job": header(), **fields})


def test_an_entry_without_a_header_is_malformed() -> None:
    for entry in ({}, {b"0": b"text"}, {b"JOB": header(), b"0": b"text"}):
        with pytest.raises(MalformedMessage, match="header"):
            decode_job(entry)


def test_an_error_does_not_repeat_the_text_of_a_row() -> None:
    with pytest.raises(MalformedMessage) as caught:
        decode_job({b"job": header(), b"0": b"my secret \xff"})
    assert "secret" not in str(caught.value)
