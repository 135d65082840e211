"""A Parquet file as a source of records, row group by row group."""

import datetime
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from producer.bulk.arrow import load_arrow, reading_parquet, unconvertible
from producer.bulk.conditions import Conditions
from producer.bulk.ends import Json, Record, Spoilt
from producer.bulk.files import absolute, fingerprint, rereadable
from producer.bulk.identity import record_of
from producer.errors import ConfigurationError

_BATCH_ROWS = 1024
_BATCH_BYTES = 4 << 20
_BUFFER_BYTES = 1 << 20


class ParquetSource:
    """Reads all columns, as plain values that JSON can hold: dates and times as ISO 8601 (to the microsecond),
    decimals as text, NaN and infinities as None; bytes are left out. A position is how many rows are behind."""

    unique_ids = False

    def __init__(self, path: str, id_field: str) -> None:
        self.path = path
        self.name = absolute(path)
        self._id_field = id_field

    def check(self) -> None:
        """Read its footer; raise ConfigurationError if it is no whole Parquet file, or has no column for the ids."""
        with _opened(self.path) as file:
            columns = file.schema_arrow.names
        if self._id_field not in columns and self._id_field.split(".")[0] not in columns:
            raise ConfigurationError(f"{self.path} has no column {self._id_field!r}; it has {', '.join(columns)}")

    def fingerprint(self) -> Json:
        """The file's size and time."""
        return fingerprint(self.path)

    def usual_template(self) -> str:
        """Nothing here says how texts are made."""
        return ""

    def count(self, where: Conditions) -> int | None:
        """The rows, from the footer; None with conditions."""
        if where:
            return None
        with _opened(self.path) as file:
            rows: int = file.metadata.num_rows
            return rows

    def close(self) -> None:
        """Nothing stays open once nobody asks for records."""

    def records(self, where: Conditions, after: Json = None) -> Iterator[Record | Spoilt]:
        """Yield the records that fit, in order, after a position; row groups that are behind it are not read.

        Raises:
            ConfigurationError: it cannot be read, or is damaged somewhere.
        """
        behind = after or 0
        for number, fields in enumerate(_rows(self.path, behind), behind + 1):
            if where.fit(fields):
                yield record_of(fields, self._id_field, position=number, place=f"{self.path} row {number}")


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetFile` that reads a column's pages one after another, never a whole row group."""
    _, parquet = load_arrow()
    if not rereadable(path):
        raise ConfigurationError(f"{path} cannot be read: it is not a regular file")
    with (
        reading_parquet(path),
        Path(path).open("rb"),  # pyarrow's words for what the system refuses are its own
        parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES, page_checksum_verification=True) as file,
    ):
        yield file


def _rows(path: str, behind: int) -> Iterator[Mapping[str, Any]]:
    """The fields of each row after so many."""
    with _opened(path) as file:
        for group in range(file.num_row_groups):
            shape = file.metadata.row_group(group)
            if shape.num_rows <= behind:
                behind -= shape.num_rows
                continue
            each_bytes = shape.total_byte_size // shape.num_rows
            rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, each_bytes)))
            for batch in file.iter_batches(rows, row_groups=[group], use_threads=False):
                seen = min(behind, batch.num_rows)
                behind -= seen
                yield from _fields(batch.slice(seen), path)


def _fields(batch: Any, path: str) -> Iterator[Mapping[str, Any]]:
    try:
        columns = [column.cast(_to_microseconds(column.type), safe=False).to_pylist() for column in batch.columns]
    except (ValueError, LookupError, ArithmeticError, TypeError) as error:
        raise unconvertible(path, error) from error
    names = batch.schema.names
    for row in zip(*columns, strict=True):
        yield _plain_object(zip(names, row, strict=True))


def _to_microseconds(kind: Any) -> Any:
    """The type with nanoseconds made microseconds, which is what Python's times can hold."""
    pyarrow, _ = load_arrow()
    types = pyarrow.types
    if types.is_struct(kind):
        return pyarrow.struct([field.with_type(_to_microseconds(field.type)) for field in kind])
    if types.is_list(kind) or types.is_large_list(kind):
        make = pyarrow.list_ if types.is_list(kind) else pyarrow.large_list
        return make(kind.value_field.with_type(_to_microseconds(kind.value_type)))
    if types.is_timestamp(kind) and kind.unit == "ns":
        return pyarrow.timestamp("us", kind.tz)
    if types.is_duration(kind) and kind.unit == "ns":
        return pyarrow.duration("us")
    return pyarrow.time64("us") if types.is_time64(kind) else kind


def _plain_object(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in items if not isinstance(value, bytes)}


def _plain(value: Any) -> Any:
    """A value as JSON can hold it; bytes are gone."""
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime.date | datetime.time):  # a datetime is a date, too
        return value.isoformat()
    if isinstance(value, Mapping):
        return _plain_object(value.items())
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value if not isinstance(part, bytes)]
    return str(value)
