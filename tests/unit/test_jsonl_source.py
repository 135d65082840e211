"""JSON Lines as a source: order, resuming, lines that are none, damaged files, refusals in one line, flat memory."""

import gzip
import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from producer.bulk import jsonl_source
from producer.bulk.conditions import Conditions
from producer.bulk.ends import Record, Spoilt
from producer.bulk.jsonl_source import JsonlSource
from producer.errors import ConfigurationError, InvalidRequest
from tests.unit.file_ends import ALL, read, spoilt

CONTENT = b'\xef\xbb\xbf{"id": "a", "text": "one"}\r\n\n  \n{"id": 2, "text": "two"}\n{"id": "c", "user": 7}'
"""With a byte order mark, blank lines, and no end of the last line."""


@pytest.fixture(params=["records.jsonl", "records.jsonl.gz", "-"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes new sources of the same records, since standard input can be read only once."""
    path = request.param if request.param == "-" else str(tmp_path / request.param)
    if path != "-":
        Path(path).write_bytes(gzip.compress(CONTENT) if path.endswith(".gz") else CONTENT)

    def made() -> JsonlSource:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(CONTENT)))
        return JsonlSource(path, "id")

    return made


def source_of(tmp_path: Path, content: bytes, name: str = "records.jsonl") -> JsonlSource:
    (tmp_path / name).write_bytes(content)
    return JsonlSource(str(tmp_path / name), "id")


def test_records_come_in_order_with_all_their_fields(source: Any) -> None:
    found = read(source())

    assert [record.id for record in found] == ["a", 2, "c"]
    assert found[0].fields == {"id": "a", "text": "one"}
    assert [record.place.rsplit(" ", 2)[1:] for record in found] == [["line", "1"], ["line", "4"], ["line", "5"]]


def test_a_run_goes_on_after_any_record(source: Any) -> None:
    found = read(source())

    for behind, record in enumerate(found, 1):
        position = json.loads(json.dumps(record.position))
        assert read(source(), after=position) == found[behind:]


def test_conditions_choose_records(source: Any) -> None:
    assert [record.id for record in read(source(), Conditions.parse(["user=7"]))] == ["c"]


def test_what_is_shorter_than_before_is_refused(source: Any) -> None:
    with pytest.raises(ConfigurationError, match="shorter than what the run has read"):
        read(source(), after=[9, 1000])


def test_only_plain_files_are_counted_and_only_files_have_a_fingerprint(source: Any) -> None:
    made = source()
    made.check()

    assert made.count(ALL) == (3 if made.path.endswith(".jsonl") else None)
    assert made.count(Conditions.parse(["a=b"])) is None
    assert (made.fingerprint() is None) == (made.path == "-")
    assert made.name == "-" or Path(made.name).is_absolute()


def test_standard_input_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(CONTENT)))
    source = JsonlSource("-", "id")
    read(source)

    with pytest.raises(ConfigurationError, match="only once"):
        read(source)


def test_a_pipe_is_read_as_it_comes(tmp_path: Path) -> None:
    inlet, outlet = os.pipe()
    os.write(outlet, CONTENT)
    os.close(outlet)
    source = JsonlSource(f"/dev/fd/{inlet}", "id")

    source.check()
    assert (source.count(ALL), source.fingerprint()) == (None, None)
    assert len(read(source, after=[1, 0])) == 2
    os.close(inlet)


def test_another_file_of_the_same_name_has_another_fingerprint(tmp_path: Path) -> None:
    source = source_of(tmp_path, CONTENT)
    before = source.fingerprint()
    assert before == json.loads(json.dumps(source.fingerprint()))

    os.utime(source.path, ns=(1, 1))

    assert source.fingerprint() != before


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'["id"]', "not a JSON object"),
        (b'{"text": "x"}', "has no field 'id'"),
        (b'{"id": null}', "has no field 'id'"),
        (b'{"id": 1.5}', "neither a string nor a whole number"),
        (b'{"id": true}', "neither a string nor a whole number"),
        (b'{"id": {"a": 1}}', "neither a string nor a whole number"),
        (b'{"id": "\\ud800"}', "not Unicode"),
    ],
)
def test_a_line_without_a_record_is_spoilt(tmp_path: Path, line: bytes, reason: str) -> None:
    assert reason in spoilt(source_of(tmp_path, line)).reason


@pytest.mark.parametrize(
    "line",
    [
        b'{"id": 1',
        b"text",
        b'{"id": "\xff"}',
        b'{"id": "\xed\xa0\x80"}',
        b"[" * 100_000,
        CONTENT.decode().encode("utf-16"),
    ],
)
def test_a_line_that_is_not_json_is_damage(tmp_path: Path, line: bytes) -> None:
    source = source_of(tmp_path, b'{"id": 1}\n' + line + b"\n")

    good, *spoilt = source.records(ALL)
    assert isinstance(good, Record)
    assert all(isinstance(item, Spoilt) and item.damaged for item in spoilt)
    assert spoilt[0].place.endswith("records.jsonl line 2")
    assert isinstance(spoilt[0], Spoilt)
    assert spoilt[0].reason == "is not JSON"


def test_a_file_without_line_ends_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl_source, "_LONGEST_LINE_MIB", 1)
    source = source_of(tmp_path, b'{"id": 1}\n"' + b"x" * (1 << 20) + b'"\n')

    with pytest.raises(InvalidRequest, match="line 2 is longer than 1 MiB"):
        list(source.records(ALL))


def test_numbers_that_json_does_not_know_are_null(tmp_path: Path) -> None:
    (record,) = read(source_of(tmp_path, b'{"id": 1, "n": [NaN, -Infinity, 1e999, 1.5]}'))

    assert record.fields["n"] == [None, None, None, 1.5]


@pytest.mark.parametrize("damage", ["cut", "flipped", "plain", "empty"])
def test_gzip_that_is_not_whole_is_said_in_one_line(tmp_path: Path, damage: str) -> None:
    data = bytearray(gzip.compress(b"".join(b'{"id": %d, "n": %d}\n' % (n, n * n) for n in range(5000))))
    data[-6] ^= 0xFF if damage == "flipped" else 0
    content = {"cut": bytes(data[:-9]), "plain": CONTENT, "empty": b""}.get(damage, bytes(data))
    source = source_of(tmp_path, content, "records.jsonl.gz")

    with pytest.raises(ConfigurationError, match=r"records\.jsonl\.gz is cut off or damaged"):
        list(source.records(ALL))


@pytest.mark.parametrize(
    ("path", "reason"), [("missing", "No such file"), ("folder", "Is a directory"), ("file/below", "Not a directory")]
)
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, path: str, reason: str, ending: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / f"folder{ending}").mkdir()
    source = JsonlSource(str(tmp_path / (path + ending)), "id")

    for use in (source.check, source.fingerprint, lambda: list(source.records(ALL))):
        with pytest.raises(ConfigurationError, match=f"cannot be read: {reason}"):
            use()


@pytest.mark.parametrize(("name", "count"), [("records.jsonl", 50_000), ("records.jsonl.gz", 15_000)])
def test_a_long_file_is_not_held_in_memory(tmp_path: Path, name: str, count: int) -> None:
    content = b"".join(b'{"id": %d, "text": "%s"}\n' % (number, b"word " * 40) for number in range(count))
    source = source_of(tmp_path, gzip.compress(content, 1) if name.endswith(".gz") else content, name)
    size = len(content)
    del content

    tracemalloc.start()
    try:
        assert sum(1 for _ in source.records(ALL)) == count
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 1 << 20 < size / 3
