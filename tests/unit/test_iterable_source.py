"""A Python iterable as a source: order, resuming, what is no record, iterators that are read once."""

from collections.abc import Mapping
from typing import Any

import pytest

from producer.bulk.conditions import Conditions
from producer.bulk.ends import Record, Source
from producer.bulk.iterable import IterableSource
from producer.bulk.jsonl_source import JsonlSource
from producer.bulk.parquet_source import ParquetSource
from producer.errors import ConfigurationError
from tests.unit.file_ends import ALL, read, spoilt

RECORDS = [{"key": number, "user": number % 2} for number in range(6)]


def test_all_file_ends_are_sources() -> None:
    sources: list[Source] = [IterableSource([]), JsonlSource("x", "id"), ParquetSource("x", "id")]

    assert not any(source.unique_ids for source in sources)


def test_records_come_in_order() -> None:
    source = IterableSource(RECORDS, id_field="key", name="contacts", count=6)
    source.check()

    found = read(source)

    assert [record.id for record in found] == list(range(6))
    assert found[2] == Record(id=2, fields=RECORDS[2], position=3, place="contacts record 3")
    assert (source.name, source.count(ALL), source.fingerprint()) == ("contacts", 6, None)


def test_a_run_goes_on_after_any_record() -> None:
    found = read(IterableSource(RECORDS, id_field="key"))

    for behind, record in enumerate(found, 1):
        assert read(IterableSource(iter(RECORDS), id_field="key"), after=record.position) == found[behind:]


def test_conditions_choose_records() -> None:
    source, where = IterableSource(RECORDS, id_field="key", count=6), Conditions.parse(["user=1"])

    assert [record.id for record in read(source, where)] == [1, 3, 5]
    assert source.count(where) is None


@pytest.mark.parametrize(
    ("thing", "reason"), [("text", "not a mapping"), ({"text": "x"}, "no field 'id'"), ({"id": 1.5}, "neither")]
)
def test_what_is_no_record_is_spoilt(thing: Any, reason: str) -> None:
    things: list[Mapping[str, Any]] = [thing]

    assert reason in spoilt(IterableSource(things)).reason


def test_an_iterator_is_read_once_and_a_list_again() -> None:
    again, once = IterableSource(RECORDS, id_field="key"), IterableSource(iter(RECORDS), id_field="key")
    assert read(again) == read(again) == read(once)

    with pytest.raises(ConfigurationError, match="iterable is an iterator and can be read only once"):
        read(once)
