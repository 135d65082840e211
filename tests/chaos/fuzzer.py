"""A mutational fuzzer of stream entries: begins with a valid job and breaks it in one way or several. Seeded."""

import random
from collections.abc import Callable
from typing import Any

import msgpack

from producer.wire.codec import HEADER_FIELD, MAX_BUDGET_MS, MAX_ROWS_PER_JOB
from producer.wire.models import TaskName
from tests.fuzzing import Fields

TEXT_LIMIT_BYTES = 65_536

_DEPTH = 20_000
_BUDGETS: tuple[Any, ...] = (
    0,
    -1,
    1,
    MAX_BUDGET_MS + 1,
    2**63,
    2**64 - 1,
    -(2**63),
    5.0,
    float("nan"),
    True,
    None,
    "5",
)
_VERSIONS: tuple[Any, ...] = (0, 2, -1, 2**64 - 1, 1.0, True, None, "1", b"1", [1], {"v": 1})
_KINDS: tuple[Any, ...] = (
    "image",
    "QUERY",
    "",
    1,
    b"query",
    None,
    ["query"],
    {"kind": "query"},
    "\N{GREEK SMALL LETTER ALPHA}",
)
_QUERIES: tuple[Any, ...] = ("", "  ", 7, b"q", None, [], {}, "q" * (TEXT_LIMIT_BYTES + 1))
_LENGTHS = (
    b"\xdf\xff\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xd9\xff",
)
_EXTENSIONS = (b"\xc9\xff\xff\xff\xff\x01", b"\xd6\xff\0\0\0\0", b"\xd4\x05x", b"\xc7\x03\x07abc", b"\xc1")
_NAMES = (
    b"",
    b"00",
    b" 0",
    b"-1",
    b"\xff",
    b"JOB",
    b"job ",
    b"1e3",
    b"999999999999",
    b"v",
    b"dead:entry",
    b"\0",
    "\u0660".encode(),
)
_TEXTS = (
    b"",
    b"   ",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xed\xb2\x80",
    b"\xc0\x80",
    b"\xc3",
    b"\r\n\r\n",
    b"x" * (TEXT_LIMIT_BYTES + 1),
)


class Fuzzer:
    """Makes entries for one task's lanes; the same ones for the same source of chance."""

    def __init__(self, task: TaskName, chance: random.Random) -> None:
        self._task = task
        self._chance = chance
        self._made = 0

    def valid(self) -> Fields:
        """A good job, unlike all others."""
        self._made += 1
        rows = 1 if self._task == "embed" else self._chance.randint(1, 6)
        texts = [f"{self._task} entry {self._made} row {row} é" for row in range(rows)]
        return ((HEADER_FIELD, _pack(self._header())), *_rows(text.encode() for text in texts))

    def broken(self) -> Fields:
        """A good job with one to three things done to it; it may happen to be still good."""
        entry = self.valid()
        for _ in range(self._chance.choice((1, 1, 1, 2, 3))):
            entry = self._chance.choice(_MUTATIONS)(self, entry)
        return entry

    def oversized(self, size_bytes: int) -> Fields:
        """An entry of about so many bytes: too long a text, a header of rubbish, or many long rows."""
        shape = self._chance.choice(("text", "header", "rows", "field"))
        header, *rows = self.valid()
        if shape == "text":
            return (header, (b"0", b"long " * (size_bytes // 5)))
        if shape == "header":
            return ((HEADER_FIELD, self._chance.randbytes(size_bytes)), *rows)
        if shape == "field":
            return (header, *rows, (b"more", self._chance.randbytes(size_bytes)))
        return (header, *_rows([b"x" * (size_bytes // MAX_ROWS_PER_JOB)] * MAX_ROWS_PER_JOB))

    def _header(self, **changes: Any) -> dict[str, Any]:
        kind = "pair" if self._task == "rerank" else self._chance.choice(("query", "passage"))
        query = {"query": f"query {self._made}"} if kind == "pair" else {}
        return {"v": 1, "kind": kind, "budget_ms": 3_600_000, **query, **changes}

    def _with_header(self, entry: Fields, **changes: Any) -> Fields:
        return ((HEADER_FIELD, _pack(self._header(**changes))), *entry[1:])

    def _change_value(self, entry: Fields, change: Callable[[bytes], bytes]) -> Fields:
        at = self._chance.randrange(len(entry))
        return tuple((name, change(value) if n == at else value) for n, (name, value) in enumerate(entry))

    def flip_bits(self, entry: Fields) -> Fields:
        def flip(value: bytes) -> bytes:
            flipped = bytearray(value)
            for _ in range(self._chance.randint(1, 8) if flipped else 0):
                flipped[self._chance.randrange(len(flipped))] ^= 1 << self._chance.randrange(8)
            return bytes(flipped)

        return self._change_value(entry, flip)

    def truncate(self, entry: Fields) -> Fields:
        return self._change_value(entry, lambda value: value[: self._chance.randint(0, len(value))])

    def extend(self, entry: Fields) -> Fields:
        return self._change_value(entry, lambda value: value + self._chance.randbytes(self._chance.randint(1, 30)))

    def change_a_length(self, entry: Fields) -> Fields:
        def declare(value: bytes) -> bytes:
            at = self._chance.randint(0, len(value))
            return value[:at] + self._chance.choice((*_LENGTHS, *_EXTENSIONS)) + value[at + 1 :]

        return self._change_value(entry, declare)

    def drop_a_field(self, entry: Fields) -> Fields:
        at = self._chance.randrange(len(entry))
        return (*entry[:at], *entry[at + 1 :]) or entry

    def repeat_a_field(self, entry: Fields) -> Fields:
        name, value = self._chance.choice(entry)
        return (*entry, (name, self._chance.choice((value, value[::-1], b"", b"another"))))

    def add_a_field(self, entry: Fields) -> Fields:
        return (*entry, (self._chance.choice(_NAMES), self._chance.randbytes(self._chance.randint(0, 20))))

    def rename_a_field(self, entry: Fields) -> Fields:
        at = self._chance.randrange(len(entry))
        return tuple((self._chance.choice(_NAMES) if n == at else name, value) for n, (name, value) in enumerate(entry))

    def change_the_budget(self, entry: Fields) -> Fields:
        return self._with_header(entry, budget_ms=self._chance.choice(_BUDGETS))

    def change_the_version(self, entry: Fields) -> Fields:
        return self._with_header(entry, v=self._chance.choice(_VERSIONS))

    def change_the_kind(self, entry: Fields) -> Fields:
        return self._with_header(entry, kind=self._chance.choice(_KINDS))

    def change_the_query(self, entry: Fields) -> Fields:
        return self._with_header(entry, query=self._chance.choice(_QUERIES))

    def take_the_other_task(self, entry: Fields) -> Fields:
        other = {"kind": "passage"} if self._task == "rerank" else {"kind": "pair", "query": "q"}
        return ((HEADER_FIELD, _pack({"v": 1, "budget_ms": 60_000, **other})), *entry[1:])

    def nest(self, entry: Fields) -> Fields:
        opening = self._chance.choice((b"\x91", b"\x81\xa1v", b"\x81\xa4kind"))
        return ((HEADER_FIELD, opening * self._chance.choice((10, 600, _DEPTH)) + b"\xc0"), *entry[1:])

    def make_other_messages(self, entry: Fields) -> Fields:
        other = self._chance.choice(
            (b"", b"\x80", _pack([]), _pack({}), _pack({"v": 1}), _pack({"v": 1, "score": 1.0}))
        )
        return ((HEADER_FIELD, other), *entry[1:])

    def change_a_text(self, entry: Fields) -> Fields:
        if len(entry) < 2:
            return entry
        at = self._chance.randrange(1, len(entry))
        text = self._chance.choice(_TEXTS)
        return tuple((name, text if n == at else value) for n, (name, value) in enumerate(entry))

    def add_many_fields(self, entry: Fields) -> Fields:
        count = self._chance.choice((MAX_ROWS_PER_JOB, MAX_ROWS_PER_JOB + 1, 1000))
        return (entry[0], *_rows(b"text %d of %d" % (row, self._made) for row in range(count)))


_MUTATIONS: tuple[Callable[[Fuzzer, Fields], Fields], ...] = (
    Fuzzer.flip_bits,
    Fuzzer.flip_bits,
    Fuzzer.truncate,
    Fuzzer.extend,
    Fuzzer.change_a_length,
    Fuzzer.drop_a_field,
    Fuzzer.repeat_a_field,
    Fuzzer.add_a_field,
    Fuzzer.rename_a_field,
    Fuzzer.change_the_budget,
    Fuzzer.change_the_version,
    Fuzzer.change_the_kind,
    Fuzzer.change_the_query,
    Fuzzer.take_the_other_task,
    Fuzzer.nest,
    Fuzzer.make_other_messages,
    Fuzzer.change_a_text,
    Fuzzer.add_many_fields,
)


def _pack(body: Any) -> bytes:
    data: bytes = msgpack.packb(body)
    return data


def _rows(texts: Any) -> Fields:
    return tuple((b"%d" % number, text) for number, text in enumerate(texts))
