"""Parquet as a source: order, resuming, plain values, flat memory, damaged files and refusals in one line."""

import datetime
import json
import sys
import tracemalloc
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer.bulk import parquet_source
from producer.bulk.conditions import Conditions
from producer.bulk.parquet_source import ParquetSource
from producer.errors import ConfigurationError
from tests.unit.file_ends import ALL, read, spoilt

ROWS = 25
NOON = datetime.datetime(2026, 11, 23, 12, 0, 0, 5)
NOON_NS = pa.array([NOON], pa.timestamp("us")).cast("timestamp[ns]")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Row groups of 10, 10 and 5 rows."""
    table = pa.table({"id": [f"r{number}" for number in range(ROWS)], "user": [number % 2 for number in range(ROWS)]})
    pq.write_table(table, tmp_path / "records.parquet", row_group_size=10)
    return tmp_path / "records.parquet"


def source_of(tmp_path: Path, **columns: Any) -> ParquetSource:
    pq.write_table(pa.table(columns), tmp_path / "one.parquet")
    return ParquetSource(str(tmp_path / "one.parquet"), "id")


def test_records_come_in_order_with_all_their_fields(path: Path) -> None:
    source = ParquetSource(str(path), "id")
    source.check()

    found = read(source)

    assert [record.id for record in found] == [f"r{number}" for number in range(ROWS)]
    assert found[6].fields == {"id": "r6", "user": 0}
    assert found[6].place == f"{path} row 7"
    assert source.count(ALL) == ROWS
    assert source.fingerprint() == json.loads(json.dumps(source.fingerprint()))


def test_a_run_goes_on_after_any_record(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_source, "_BATCH_ROWS", 4)
    found = read(ParquetSource(str(path), "id"))

    for behind, record in enumerate(found, 1):
        assert read(ParquetSource(str(path), "id"), after=record.position) == found[behind:]


def test_conditions_choose_records(path: Path) -> None:
    source, where = ParquetSource(str(path), "id"), Conditions.parse(["user=1"])

    assert [record.position for record in read(source, where)] == list(range(2, ROWS, 2))
    assert [record.position for record in read(source, where, after=20)] == [22, 24]
    assert source.count(where) is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (pa.array([NOON]), "2026-11-23T12:00:00.000005"),
        (NOON_NS, "2026-11-23T12:00:00.000005"),
        (pa.array([1], pa.timestamp("ns")), "1970-01-01T00:00:00"),
        (pa.array([NOON], pa.timestamp("us", "UTC")), "2026-11-23T12:00:00.000005+00:00"),
        (pa.array([NOON.date()]), "2026-11-23"),
        (pa.array([1_001], pa.time64("ns")), "00:00:00.000001"),
        (pa.array([1_001], pa.duration("ns")), "0:00:00.000001"),
        (pa.array([Decimal("1.50")]), "1.50"),
        (pa.array([uuid.UUID(int=1).bytes], pa.uuid()), str(uuid.UUID(int=1))),
        (pa.array([float("nan")]), None),
        (pa.array([1.5], pa.float32()), 1.5),
        (pa.array([True]), True),
        (pa.array([{"at": [1], "raw": b"x"}], pa.struct([("at", pa.list_(pa.timestamp("ns"))), ("raw", pa.binary())])),
         {"at": ["1970-01-01T00:00:00"]}),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int32())), [["a", 1]]),
        (pa.array(["a"]).dictionary_encode(), "a"),
    ],
)  # fmt: skip
def test_values_are_what_json_can_hold(tmp_path: Path, column: Any, value: Any) -> None:
    (record,) = read(source_of(tmp_path, id=[1], value=column))

    assert record.fields["value"] == value
    assert json.dumps(record.fields, allow_nan=False)


def test_bytes_are_left_out(tmp_path: Path) -> None:
    (record,) = read(source_of(tmp_path, id=[1], value=[b"raw"]))

    assert record.fields == {"id": 1}


@pytest.mark.parametrize("identity", [None, 1.5, True, b"raw"])
def test_a_row_without_an_identity_is_spoilt(tmp_path: Path, identity: Any) -> None:
    assert "field 'id'" in spoilt(source_of(tmp_path, id=[identity])).reason


def test_an_identity_is_sought_inside_of_objects(tmp_path: Path) -> None:
    source_of(tmp_path, meta=[{"key": 7}])
    source = ParquetSource(str(tmp_path / "one.parquet"), "meta.key")

    source.check()
    assert [record.id for record in read(source)] == [7]


def test_a_missing_column_is_said_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no column 'id'; it has key, text"):
        source_of(tmp_path, key=[1], text=["x"]).check()


def test_a_value_that_python_cannot_hold_is_said_in_one_line(tmp_path: Path) -> None:
    source = source_of(tmp_path, id=[1], at=pa.array([2**62], pa.timestamp("us")))

    with pytest.raises(ConfigurationError, match=r"one\.parquet cannot be read: date value out of range"):
        list(source.records(ALL))


@pytest.mark.parametrize("kept", [0, 3, 100, -9, -1])
def test_a_file_that_is_not_whole_is_said_in_one_line(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    source = ParquetSource(str(path), "id")

    for use in (source.check, lambda: source.count(ALL), lambda: list(source.records(ALL))):
        with pytest.raises(ConfigurationError, match=r"records\.parquet is cut off or damaged"):
            use()


def test_a_file_that_is_damaged_inside_is_said_in_one_line(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:4] + bytes(40) + data[44:])
    source = ParquetSource(str(path), "id")
    source.check()

    with pytest.raises(ConfigurationError, match=r"records\.parquet is cut off or damaged"):
        list(source.records(ALL))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing", "No such file or directory"),
        ("", "Is a directory"),
        ("records.parquet/below", "Not a directory"),
        ("/dev/null", "it is not a regular file"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(path: Path, name: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"cannot be read: {reason}"):
        ParquetSource(str(path.parent / name), "id").check()


def test_without_pyarrow_it_says_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'headrace\[parquet\]'"):
        ParquetSource(str(path), "id").check()


def test_a_long_file_is_not_held_in_memory(tmp_path: Path) -> None:
    count = 50_000
    texts = pa.array([f"{number} " + "word " * 40 for number in range(count)])
    path = tmp_path / "long.parquet"
    pq.write_table(pa.table({"id": range(count), "text": texts}), path, compression="none", row_group_size=count)
    source, size = ParquetSource(str(path), "id"), texts.nbytes
    del texts
    before, most = pa.total_allocated_bytes(), 0

    tracemalloc.start()
    try:
        for record in source.records(ALL):
            if record.position % 1000 == 0:
                most = max(most, pa.total_allocated_bytes() - before)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert record.position == count
    assert peak < 2 << 20 < size / 4
    assert most < size / 2, "not even one row group"
