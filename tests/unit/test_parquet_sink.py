"""Parquet as a sink: its columns and metadata, resuming from every mark, what was torn, refusals in one line."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from producer.bulk import parquet_sink
from producer.bulk.ends import Embedded
from producer.bulk.parquet_sink import ParquetSink
from producer.bulk.parquet_source import ParquetSource
from producer.errors import ConfigurationError, InvalidRequest, VerificationFailed
from producer.provenance import Provenance
from tests.unit.file_ends import DIMENSION, SPACE, files_no_longer_than, finish, read, row, rows, run, tree

BATCHES = [rows(7), rows(1, 7), [], rows(16, 8), rows(3, 24)]


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files of row groups of 5 rows, in a folder of their own."""
    monkeypatch.setattr(parquet_sink, "_ROW_GROUP_ROWS", 5)
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "vectors.parquet"


def test_a_file_has_ids_and_vectors_and_says_whose_they_are(target: Path) -> None:
    sink = ParquetSink(str(target))
    sink.check(SPACE, resuming=False, overwrite=False)
    assert list(target.parent.iterdir()) == []

    run(sink, BATCHES)

    table = pq.read_table(target)
    written: list[Embedded] = [row for batch in BATCHES for row in batch]
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, DIMENSION)
    assert table.schema.types == [pa.string(), pa.list_(pa.float32(), DIMENSION)]
    assert table["id"].to_pylist() == [row.record.id for row in written]
    assert vectors.tobytes() == np.stack([row.vector for row in written]).tobytes()
    assert list(target.parent.iterdir()) == [target]

    shape = pq.ParquetFile(target).metadata
    assert [shape.row_group(group).num_rows for group in range(shape.num_row_groups)] == [5, 5, 5, 5, 5, 2]
    said = Provenance.read({"headrace": json.loads(shape.metadata[b"headrace"])})
    assert said is not None
    assert (said.model, said.tag, said.dimension, said.kind, said.template) == (
        "model", "tag", DIMENSION, "passage", "{text}",
    )  # fmt: skip


def test_nothing_has_the_name_before_the_end(target: Path) -> None:
    sink = ParquetSink(str(target))
    sink.begin(SPACE)
    sink.write(rows(2))

    assert [path.name for path in target.parent.iterdir()] == [f".vectors.parquet.{SPACE.run}.parts"]
    assert finish(sink, 2) == "2 rows counted"


def test_a_run_goes_on_from_any_mark_whatever_came_after_it(target: Path) -> None:
    marks = run(ParquetSink(str(target)), BATCHES)
    whole = target.read_bytes()

    for stopped, mark in enumerate(marks, 1):
        target.unlink()
        sink = ParquetSink(str(target))
        sink.begin(SPACE)
        assert [sink.write(batch) for batch in BATCHES[:stopped]] == marks[:stopped]
        sink.write(rows(4))
        (folder,) = target.parent.iterdir()
        kept = {entry.name for entry in folder.iterdir()} - {f"{mark['parts']:08}.parquet"}
        (folder / "00000099.tmp").write_bytes(b"torn")
        ParquetSink(str(target)).begin(SPACE, mark)
        assert {entry.name for entry in folder.iterdir()} == kept

        done = sum(map(len, BATCHES[:stopped]))
        again = [rows(27)[done:]]  # in other batches than before
        run(ParquetSink(str(target)), again, json.loads(json.dumps(mark)), done)

        assert target.read_bytes() == whole
        assert list(tree(target.parent)) == [target.name]


def test_a_run_anew_forgets_what_was_left(target: Path) -> None:
    left = ParquetSink(str(target))
    left.begin(SPACE)
    left.write(rows(3))

    run(ParquetSink(str(target)), [rows(2)])

    assert pq.read_table(target)["id"].to_pylist() == ["r0", "r1"]


@pytest.mark.parametrize("tidied", ["nothing", "half", "all"])
def test_a_run_that_was_stopped_after_the_name_was_given_only_tidies_up(
    target: Path, tidied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = target.with_name(f".vectors.parquet.{SPACE.run}.parts")
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda folder, ignore_errors: None)
        marks = run(ParquetSink(str(target)), [rows(2), rows(1, 2)])
    for part in sorted(folder.iterdir())[: {"nothing": 0, "half": 1, "all": 2}[tidied]]:
        part.unlink()
    whole = target.read_bytes()

    sink = ParquetSink(str(target))
    sink.check(SPACE, resuming=True, overwrite=False)
    sink.begin(SPACE, marks[-1])
    assert finish(sink, 3) == "3 rows counted"

    assert tree(target.parent) == {target.name: whole}


def test_what_is_published_takes_no_more_rows(target: Path) -> None:
    (mark,) = run(ParquetSink(str(target)), [rows(2)])
    sink = ParquetSink(str(target))
    sink.begin(SPACE, mark)

    with pytest.raises(ConfigurationError, match="is finished"):
        sink.write(rows(1))


@pytest.mark.parametrize("another", ["file", "run"])
def test_a_mark_without_its_parts_is_refused(target: Path, another: str) -> None:
    sink = ParquetSink(str(target))
    if another == "file":
        target.write_bytes(b"another's")
    else:
        sink.begin(dataclasses.replace(SPACE, run="another"))
        sink.write(rows(2))
        finish(sink, 2)
    sink.begin(SPACE)
    mark = sink.write(rows(2))
    next(target.parent.glob(".*/00000000.parquet")).unlink()

    with pytest.raises(ConfigurationError, match="is not whole any more: start without --resume"):
        ParquetSink(str(target)).begin(SPACE, mark)


def test_whole_numbers_stay_whole_numbers(target: Path) -> None:
    sink, resumed = ParquetSink(str(target)), ParquetSink(str(target))
    sink.begin(SPACE)
    resumed.begin(SPACE, sink.write([row(5), row(-(2**63))]))

    for each, other in itertools.product((sink, resumed), (row("five"), row(2**63))):
        with pytest.raises(InvalidRequest, match=f"line {other.record.id}: its id is none of the whole numbers"):
            each.write([other])
    finish(resumed, 2)

    assert [record.id for record in read(ParquetSource(str(target), "id"))] == [5, -(2**63)]


def test_strings_stay_strings(target: Path) -> None:
    sink = ParquetSink(str(target))
    sink.begin(SPACE)

    with pytest.raises(InvalidRequest, match="its id is none of the strings") as raised:
        sink.write([row("5"), row(5)])
    assert raised.value.code == "bad_record"


def test_a_run_that_has_written_nothing_leaves_nothing(target: Path) -> None:
    sink = ParquetSink(str(target))
    sink.begin(SPACE)
    with pytest.raises(InvalidRequest, match=r"a \.jsonl sink takes any"):
        sink.write([row("5"), row(5)])
    sink.close()

    assert list(target.parent.iterdir()) == []


def test_no_rows_are_a_file_without_rows(target: Path) -> None:
    run(ParquetSink(str(target)), [])

    assert pq.read_table(target).num_rows == 0


def test_rows_that_are_missing_are_not_published(target: Path) -> None:
    sink = ParquetSink(str(target))
    sink.begin(SPACE)
    sink.write(rows(2))

    with pytest.raises(VerificationFailed, match="would have 2 rows instead of 3"):
        finish(sink, 3)
    assert not target.exists()


def test_a_part_that_is_damaged_is_said_in_one_line(target: Path) -> None:
    sink = ParquetSink(str(target))
    sink.begin(SPACE)
    sink.write(rows(50))
    part = next(target.parent.rglob("*.parquet"))
    part.write_bytes(part.read_bytes().replace(rows(1)[0].vector.tobytes(), bytes(4 * DIMENSION)))

    with pytest.raises(ConfigurationError, match=r"00000000\.parquet is cut off or damaged"):
        finish(sink, 50)
    assert not target.exists()


def test_an_existing_file_is_replaced_only_when_told(target: Path) -> None:
    target.write_bytes(b"old")
    sink = ParquetSink(str(target))

    with pytest.raises(ConfigurationError, match="exists: choose another name, or pass --overwrite"):
        sink.check(SPACE, resuming=False, overwrite=False)
    sink.check(SPACE, resuming=False, overwrite=True)
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("path", ["missing/vectors.parquet", "file/vectors.parquet", ""])
def test_what_cannot_be_written_is_said_in_one_line(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    sink = ParquetSink(str(tmp_path / path))

    with pytest.raises(ConfigurationError, match="cannot be written: "):
        sink.check(SPACE, resuming=False, overwrite=True)
    if path:
        with pytest.raises(ConfigurationError, match="cannot be written: "):
            sink.begin(SPACE)
    assert set(tree(tmp_path)) == {"file"}


def test_a_full_disk_leaves_the_parts_as_they_were(target: Path) -> None:
    sink = ParquetSink(str(target))
    sink.begin(SPACE)
    sink.write(rows(2))
    before = tree(target.parent)

    with (
        files_no_longer_than(200),
        pytest.raises(ConfigurationError, match=r"vectors\.parquet cannot be written: .*File too large"),
    ):
        sink.write(rows(1, 2))
    assert tree(target.parent) == before

    sink.write(rows(1, 2))
    with files_no_longer_than(200), pytest.raises(ConfigurationError, match="cannot be written: "):
        finish(sink, 3)
    assert not target.exists()
    assert finish(sink, 3) == "3 rows counted"
