"""JSON Lines as a sink: its lines, resuming from every mark, torn tails, refusals in one line, full disks."""

import gzip
import itertools
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producer.bulk.ends import Embedded
from producer.bulk.jsonl_sink import JsonlSink
from producer.bulk.jsonl_source import JsonlSource
from producer.errors import ConfigurationError, VerificationFailed
from tests.fuzzing import STEADY
from tests.unit.file_ends import SPACE, files_no_longer_than, finish, read, row, rows, run, tree

LINES = (
    b'{"id": "a", "embedding": [1.0,-0.5,1e-10,0.1]}\n'
    b'{"id": 2, "embedding": [3.4028235e+38,0.0,0.33333334,1.6777216e+07]}\n'
)
TWO_ROWS = [row("a", [1, -0.5, 1e-10, 0.1]), row(2, [3.4028235e38, 0, 1 / 3, 2**24])]


@pytest.fixture(params=["vectors.jsonl", "vectors.jsonl.gz"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / str(request.param)


def lines_of(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def test_a_row_is_a_line_of_its_id_and_the_shortest_digits(target: Path) -> None:
    sink = JsonlSink(str(target))
    sink.check(SPACE, resuming=False, overwrite=False)
    assert tree(target.parent) == {}

    run(sink, [TWO_ROWS])

    assert lines_of(target) == LINES
    assert list(tree(target.parent)) == [target.name]


def test_nothing_has_the_name_before_the_end(target: Path) -> None:
    sink = JsonlSink(str(target))
    sink.begin(SPACE)
    sink.write(TWO_ROWS)

    assert [name.startswith(f".{target.name}.{SPACE.run}.") for name in tree(target.parent)] == [True]
    assert finish(sink, 2) == "2 lines counted"


def test_the_rights_are_those_of_any_new_file(target: Path) -> None:
    before = os.umask(0o027)
    try:
        run(JsonlSink(str(target)), [TWO_ROWS])
    finally:
        os.umask(before)

    assert target.stat().st_mode & 0o777 == 0o640


def test_a_run_goes_on_from_any_mark_whatever_was_torn_after_it(target: Path) -> None:
    batches = [rows(3), rows(1, 3), [], rows(5, 4)]
    marks = [None, *run(JsonlSink(str(target)), batches)]
    whole = target.read_bytes()

    for stopped, tail in itertools.product(range(1, len(marks)), (b"", b'{"id": "torn', whole)):
        target.unlink()
        sink = JsonlSink(str(target))
        sink.begin(SPACE)
        assert [sink.write(batch) for batch in batches[:stopped]] == marks[1 : stopped + 1]
        (part,) = target.parent.iterdir()
        part.write_bytes(part.read_bytes() + tail)

        run(JsonlSink(str(target)), batches[stopped:], marks[stopped], sum(map(len, batches[:stopped])))

        assert target.read_bytes() == whole
        assert list(tree(target.parent)) == [target.name]


def test_gzip_is_the_same_for_other_programs(tmp_path: Path) -> None:
    for name, batches in (("some.gz", [rows(3), rows(2, 3)]), ("none.gz", [])):
        run(JsonlSink(str(tmp_path / name)), batches)
        data = (tmp_path / name).read_bytes()
        assert len(gzip.decompress(data).splitlines()) == sum(map(len, batches))
        assert data[4:8] == bytes(4), "no time, so that runs are alike"
        if program := shutil.which("gzip"):
            subprocess.run([program, "-t", str(tmp_path / name)], check=True)


def test_a_run_anew_forgets_what_was_left(target: Path) -> None:
    JsonlSink(str(target)).begin(SPACE)
    next(target.parent.iterdir()).write_bytes(b"old")

    run(JsonlSink(str(target)), [TWO_ROWS])

    assert lines_of(target) == LINES


def test_a_run_that_was_stopped_after_the_last_step_only_looks_again(target: Path) -> None:
    (mark,) = run(JsonlSink(str(target)), [TWO_ROWS])
    sink = JsonlSink(str(target))

    sink.check(SPACE, resuming=True, overwrite=False)
    sink.begin(SPACE, mark)
    with pytest.raises(ConfigurationError, match="is finished"):
        sink.write(TWO_ROWS)
    assert finish(sink, 2) == "2 lines counted"
    assert lines_of(target) == LINES


@pytest.mark.parametrize("left", [None, b"short"])
def test_a_mark_without_its_file_is_refused(target: Path, left: bytes | None) -> None:
    JsonlSink(str(target)).begin(SPACE)
    part = next(target.parent.iterdir())
    if left is None:
        part.unlink()
    else:
        part.write_bytes(left)

    with pytest.raises(ConfigurationError, match="is not whole any more: start without --resume"):
        JsonlSink(str(target)).begin(SPACE, 1000)


def test_lines_that_are_missing_are_not_published(target: Path) -> None:
    sink = JsonlSink(str(target))
    sink.begin(SPACE)
    sink.write(TWO_ROWS)

    with pytest.raises(VerificationFailed, match="would have 2 lines instead of 3"):
        finish(sink, 3)
    assert not target.exists()


def test_an_existing_file_is_replaced_only_when_told(target: Path) -> None:
    target.write_bytes(b"old")
    sink = JsonlSink(str(target))

    with pytest.raises(ConfigurationError, match="exists: choose another name, or pass --overwrite"):
        sink.check(SPACE, resuming=False, overwrite=False)
    sink.check(SPACE, resuming=True, overwrite=False)
    sink.check(SPACE, resuming=False, overwrite=True)

    assert target.read_bytes() == b"old"
    run(sink, [TWO_ROWS])
    assert lines_of(target) == LINES


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing/vectors.jsonl", "No such file or directory"),
        ("file/vectors.jsonl", "Not a directory"),
        ("", "Is a directory"),
        ("pipe", "not a regular file"),
        ("n" * 250, "File name too long"),
    ],
)
def test_what_cannot_be_written_is_said_in_one_line(tmp_path: Path, path: str, reason: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(ConfigurationError, match=f"cannot be written: .*{reason}"):
        JsonlSink(str(tmp_path / path)).check(SPACE, resuming=False, overwrite=True)
    assert set(tree(tmp_path)) == {"file"}


def test_a_folder_that_takes_no_files_is_said_in_one_line(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere

    with pytest.raises(ConfigurationError, match="cannot be written: Permission denied"):
        JsonlSink(str(target)).check(SPACE, resuming=False, overwrite=False)
    with pytest.raises(ConfigurationError, match=r"/proc/vectors\.jsonl cannot be written: No such file"):
        JsonlSink("/proc/vectors.jsonl").begin(SPACE)


def test_a_run_that_has_written_nothing_leaves_nothing(target: Path) -> None:
    sink = JsonlSink(str(target))
    sink.begin(SPACE)
    with files_no_longer_than(10), pytest.raises(ConfigurationError, match="cannot be written"):
        sink.write(rows(1))
    sink.close()

    assert list(target.parent.iterdir()) == []


def test_a_full_disk_leaves_the_part_as_it_was(target: Path) -> None:
    sink = JsonlSink(str(target))
    sink.begin(SPACE)
    mark = sink.write(TWO_ROWS)

    with (
        files_no_longer_than(mark + 10),
        pytest.raises(ConfigurationError, match=f"{target.name} cannot be written: File too large"),
    ):
        sink.write(rows(100))

    (part,) = target.parent.iterdir()
    assert part.stat().st_size == mark
    assert finish(sink, 2) == "2 lines counted"


def test_standard_output_gets_the_lines_at_once(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    sink = JsonlSink("-")
    sink.check(SPACE, resuming=False, overwrite=False)
    assert not sink.resumable

    sink.begin(SPACE)
    sink.write(TWO_ROWS)
    assert capsysbinary.readouterr().out == LINES
    assert finish(sink, 2) == ""
    with pytest.raises(ConfigurationError, match="cannot be resumed"):
        sink.begin(SPACE, 7)


IDS = st.integers() | st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
VECTORS = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4)


@settings(STEADY, max_examples=60)
@given(st.lists(st.tuples(IDS, VECTORS), max_size=8), st.sampled_from(["", ".gz"]))
def test_whatever_is_written_is_read_again(
    tmp_path: Path, pairs: list[tuple[str | int, list[float]]], ending: str
) -> None:
    target = tmp_path / f"vectors.jsonl{ending}"
    written: list[Embedded] = [row(identity, vector) for identity, vector in pairs]

    run(JsonlSink(str(target)), [written[:3], written[3:]])

    found = read(JsonlSource(str(target), "id"))
    assert [record.id for record in found] == [identity for identity, _ in pairs]
    for record, embedded in zip(found, written, strict=True):
        assert np.array(record.fields["embedding"], np.float32).tobytes() == embedded.vector.tobytes()
