"""A Parquet file as a sink of vectors: small parts that are whole, merged into one file when all is done."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from producer.bulk.arrow import load_arrow, reading_parquet
from producer.bulk.ends import Embed, Embedded, Json, Space, Totals
from producer.bulk.files import absolute, check_target, hidden, publish, sync_folder, unwritable
from producer.errors import ConfigurationError, InvalidRequest, VerificationFailed
from producer.provenance import Provenance

_ROW_GROUP_ROWS = 8192
_LAYOUT = {"use_dictionary": False, "write_statistics": ["id"], "write_page_checksum": True}
"""Neither dictionaries nor bounds are of use for vectors."""
_INT64 = range(-(2**63), 2**63)


class ParquetSink:
    """Writes the columns `id` (int64 or string, as the first is) and `embedding` (float32 lists of fixed size).

    A Parquet file cannot be appended to, so each write is a small file of its own in a hidden neighbour folder; a mark
    is how many there are, and their rows. The file's metadata has a `Provenance` as JSON, under "headrace".
    """

    ordered = True
    resumable = True

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = absolute(path)
        self._parts = 0
        self._rows = 0
        self._id_type: Any = None
        self._begun = self._finished = False

    def check(self, space: Space, *, resuming: bool, overwrite: bool) -> None:
        """Raise ConfigurationError if the file exists (and neither resuming nor overwrite), or cannot be written."""
        load_arrow()
        check_target(self.path, self._folder_of(space), replace=resuming or overwrite)

    def begin(self, space: Space, mark: Json = None) -> None:
        """Make the folder, empty or as it was at a mark. If the run has been stopped after the file took its name,
        there is nothing to write to, and `finish` only tidies up."""
        load_arrow()
        self._space = space
        self._folder = self._folder_of(space)
        self._begun = True
        self._parts, self._rows = (mark["parts"], mark["rows"]) if mark else (0, 0)
        self._id_type, self._finished = None, False
        with self._writing():
            if mark is None:
                shutil.rmtree(self._folder, ignore_errors=True)
                self._folder.mkdir()
                sync_folder(self._folder.parent)
            else:
                self._take_up()

    def _take_up(self) -> None:
        kept = {self._part(number) for number in range(self._parts)}
        there = set(self._folder.iterdir()) if self._folder.is_dir() else set()
        if not (self._folder.is_dir() and kept <= there):
            self._finished = self._is_published()
            if not self._finished:
                raise ConfigurationError(f"{self._folder} is not whole any more: start without --resume")
            return
        for extra in there - kept:
            extra.unlink()
        if self._parts:
            self._id_type = self._read(0).schema.field("id").type

    def write(self, rows: Sequence[Embedded]) -> Json:
        """Write the rows as one part; it is on disk when this returns.

        Raises:
            ConfigurationError: it cannot be written, such as on a full disk; the rows before stay.
            InvalidRequest: an id is not of the first one's type (`bad_record`).
        """
        if rows:
            if self._finished:
                raise ConfigurationError(f"{self.path} is finished: start without --resume")
            _, parquet = load_arrow()
            table = self._table(rows)
            part = self._part(self._parts)
            with self._writing(), _replacing(part, part.with_suffix(".tmp")) as stream:
                parquet.write_table(table, stream, **_LAYOUT)
            self._parts += 1
            self._rows += len(rows)
        return {"parts": self._parts, "rows": self._rows}

    def finish(self, totals: Totals, embed: Embed) -> str:
        """Merge the parts into one file, count its rows, and give it its name; then the parts go."""
        rows = self._rows
        with self._writing():
            if not self._finished:
                merged = hidden(self.path, self._space.run, "part")
                with _replacing(Path(self.path), merged) as stream:
                    rows = self._merge(stream)
                    self._check_rows(rows, totals)
                self._finished = True
            self._check_rows(rows, totals)
            shutil.rmtree(self._folder, ignore_errors=True)
        return f"{rows:,} rows counted"

    def close(self) -> None:
        """Nothing is open between two writes; a folder without any part has nothing to take up again, and goes."""
        if self._begun:
            with suppress(OSError):  # it is not empty, or there is none
                self._folder.rmdir()

    def _check_rows(self, rows: int, totals: Totals) -> None:
        if rows != totals.rows:
            raise VerificationFailed(
                f"{self.path} would have {rows:,} rows instead of {totals.rows:,}: start again without --resume"
            )

    def _folder_of(self, space: Space) -> Path:
        return hidden(self.path, space.run, "parts")

    def _part(self, number: int) -> Path:
        return self._folder / f"{number:08}.parquet"

    def _read(self, number: int) -> Any:
        _, parquet = load_arrow()
        path = self._part(number)
        with reading_parquet(str(path)), parquet.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read(use_threads=False)

    def _schema(self) -> Any:
        pyarrow, _ = load_arrow()
        vectors = pyarrow.list_(pyarrow.float32(), self._space.dimension)
        return pyarrow.schema([("id", self._id_type or pyarrow.string()), ("embedding", vectors)])

    def _table(self, rows: Sequence[Embedded]) -> Any:
        pyarrow, _ = load_arrow()
        if self._id_type is None:
            self._id_type = pyarrow.int64() if isinstance(rows[0].record.id, int) else pyarrow.string()
        whole = self._id_type == pyarrow.int64()
        for row in rows:
            found = row.record.id
            if isinstance(found, int) is not whole or (isinstance(found, int) and found not in _INT64):
                kind = "whole numbers of 64 bits" if whole else "strings"
                raise InvalidRequest(
                    f"{row.record.place}: its id is none of the {kind} that the column has from its first row on; "
                    "a .jsonl sink takes any",
                    code="bad_record",
                )
        vectors = np.stack([row.vector for row in rows]).reshape(len(rows), self._space.dimension)
        flat = pyarrow.array(vectors.astype(np.float32, copy=False).ravel())
        columns = [
            pyarrow.array([row.record.id for row in rows], self._id_type),
            pyarrow.FixedSizeListArray.from_arrays(flat, self._space.dimension),
        ]
        return pyarrow.Table.from_arrays(columns, schema=self._schema())

    def _merge(self, stream: IO[bytes]) -> int:
        """Write all parts to one file; return the number of rows."""
        _, parquet = load_arrow()
        space = self._space
        said = Provenance(
            model=space.model,
            tag=space.tag,
            dimension=space.dimension,
            kind=space.kind,
            template=space.template,
            source=space.source,
            state="complete",
            run=space.run,
        )
        metadata = {name: json.dumps(value) for name, value in said.as_metadata().items()}
        rows = 0
        with parquet.ParquetWriter(stream, self._schema().with_metadata(metadata), **_LAYOUT) as writer:
            for table in self._row_groups():
                writer.write_table(table, row_group_size=_ROW_GROUP_ROWS)
                rows += table.num_rows
        return rows

    def _row_groups(self) -> Iterator[Any]:
        """The rows of all parts in equal tables, whatever the parts' sizes: the file is the same to the bit."""
        pyarrow, _ = load_arrow()
        gathered = self._schema().empty_table()
        for number in range(self._parts):
            gathered = pyarrow.concat_tables([gathered, self._read(number)])
            while gathered.num_rows >= _ROW_GROUP_ROWS:
                yield gathered.slice(0, _ROW_GROUP_ROWS).combine_chunks()
                gathered = gathered.slice(_ROW_GROUP_ROWS)
        if gathered.num_rows:
            yield gathered.combine_chunks()

    def _is_published(self) -> bool:
        """Whether the file has its name already, and is this run's."""
        _, parquet = load_arrow()
        try:
            with reading_parquet(self.path), parquet.ParquetFile(self.path) as file:
                metadata = {name.decode(): value for name, value in (file.metadata.metadata or {}).items()}
                rows: int = file.metadata.num_rows
            said = Provenance.read({"headrace": json.loads(metadata.get("headrace", "null"))})
        except (ConfigurationError, ValueError):
            return False
        return said is not None and said.run == self._space.run and rows == self._rows

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unwritable(self.path, error) from error


@contextmanager
def _replacing(target: Path, part: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that takes a name when it is whole and on disk, and goes if the block fails."""
    try:
        with part.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        publish(part, target)
    finally:
        part.unlink(missing_ok=True)
