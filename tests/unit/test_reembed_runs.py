"""Runs of a re-embedding in memory: ended at any step and resumed, with rejects, limits and what refuses to start."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from producer.bulk.pipeline import Outcome
from producer.errors import ConfigurationError, InvalidRequest
from tests.unit.reembedding import BROKEN, Crash, Fate, MemorySink, MemorySource, records, start

WINDOW = 8
ROWS = 60
MIXED: list[Any] = [
    *records(ROWS),
    {"id": "blank", "text": " "},
    {"id": "bad", "text": f"{BROKEN} in the worker"},
    "spoilt",
    *[{"id": f"later{number}", "text": f"later {number}"} for number in range(20)],
]


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends takes nothing along that it has written; only a machine does."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def reasons(outcome: Outcome) -> list[tuple[str, str]]:
    lines = Path(outcome.rejects_path).read_text().splitlines()
    return [(reject["place"], reject["code"]) for reject in map(json.loads, lines)]


def undisturbed(folder: Path, *, ordered: bool) -> tuple[MemorySink, Outcome]:
    sink = MemorySink(ordered=ordered)
    return sink, start(MemorySource(MIXED), sink, folder / "undisturbed", window=WINDOW)


@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
def test_everything_arrives_once_and_rejects_are_set_aside(tmp_path: Path, ordered: bool) -> None:
    sink, outcome = undisturbed(tmp_path, ordered=ordered)

    assert sink.visible
    assert (outcome.rows, outcome.rejected, outcome.checked) == (ROWS + 20, 3, "all of it")
    assert sink.written == ROWS + 20
    names = [row.record.id for row in sink.rows]
    assert len(set(names)) == len(names)
    in_order = [record["id"] for record in MIXED if isinstance(record, dict) and record["id"] not in ("blank", "bad")]
    assert (names == in_order) == ordered
    assert reasons(outcome) == [
        ("memory row 61", "empty_text"),
        ("memory row 62", "model_failed"),
        ("memory row 63", "bad_record"),
    ]


@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
def test_ended_at_any_step_and_resumed_it_ends_as_if_nothing_had_happened(tmp_path: Path, ordered: bool) -> None:
    expected, told = undisturbed(tmp_path, ordered=ordered)
    ends = 0
    for at in range(expected.fate.steps):
        folder = tmp_path / str(at)
        sink = MemorySink(ordered=ordered, fate=Fate(at=at))
        try:
            start(MemorySource(MIXED), sink, folder, window=WINDOW, seed=at)
        except Crash:
            ends += 1
        written, sink.fate = sink.written, Fate()
        outcome = start(MemorySource(MIXED), sink, folder, window=WINDOW, seed=at + 1, resume=True)

        assert sink.collection == expected.collection, at
        assert (outcome.rows, outcome.rejected) == (told.rows, told.rejected), at
        assert reasons(outcome) == reasons(told), at
        if ordered:
            assert [row.record.id for row in sink.rows] == [row.record.id for row in expected.rows], at
        assert sink.written <= expected.written + WINDOW, at
        assert sink.visible
        assert outcome.resumed_rows <= written
    assert ends > ROWS


def test_ended_again_and_again_it_repeats_at_most_a_window_each_time(tmp_path: Path) -> None:
    sink, ends = MemorySink(ordered=False), 0
    while not sink.visible:
        sink.fate = Fate(at=30)
        try:
            start(MemorySource(MIXED), sink, tmp_path, window=WINDOW, seed=ends, resume=True)
        except Crash:
            ends += 1
    assert 2 <= ends < 40
    assert sink.written <= ROWS + 20 + WINDOW * ends
    assert len(sink.collection) == ROWS + 20


def test_a_finished_run_does_nothing_when_resumed(tmp_path: Path) -> None:
    sink = MemorySink(ordered=True)
    first = start(MemorySource(records(5)), sink, tmp_path)
    again = start(MemorySource(records(5)), sink, tmp_path, resume=True)
    assert (again.rows, again.checked, again.resumed_rows) == (first.rows, first.checked, 5)
    assert sink.written == 5


def unfinished(folder: Path, source: MemorySource) -> MemorySink:
    sink = MemorySink(ordered=True, fate=Fate(at=60))
    with pytest.raises(Crash):
        start(source, sink, folder, window=WINDOW)
    assert sink.written
    sink.fate = Fate()
    return sink


def test_an_unfinished_run_is_neither_repeated_nor_forgotten_by_accident(tmp_path: Path) -> None:
    source = MemorySource(records(ROWS))
    sink = unfinished(tmp_path, source)
    with pytest.raises(ConfigurationError, match=r"--resume.*--overwrite"):
        start(source, sink, tmp_path, window=WINDOW)
    assert start(source, sink, tmp_path, window=WINDOW, overwrite=True).resumed_rows == 0
    assert len(sink.rows) == ROWS


def test_a_source_that_has_changed_is_not_resumed(tmp_path: Path) -> None:
    source = MemorySource(records(ROWS))
    sink = unfinished(tmp_path, source)
    source.version = 2
    with pytest.raises(ConfigurationError, match="memory has changed"):
        start(source, sink, tmp_path, window=WINDOW, resume=True)


def test_another_order_is_another_run(tmp_path: Path) -> None:
    source = MemorySource(records(ROWS))
    sink = unfinished(tmp_path, source)
    assert start(source, sink, tmp_path, template="{id}: {text}").resumed_rows == 0


def test_two_processes_do_not_carry_out_one_run(tmp_path: Path) -> None:
    class Meddling(MemorySource):
        def count(self, where: Any) -> int | None:
            with pytest.raises(ConfigurationError, match="going on in another process"):
                start(MemorySource(records(5)), MemorySink(ordered=True), tmp_path)
            return 5

    start(Meddling(records(5)), MemorySink(ordered=True), tmp_path)


def test_a_part_of_the_data(tmp_path: Path) -> None:
    sink = MemorySink(ordered=True)
    outcome = start(MemorySource(records(ROWS)), sink, tmp_path, where=("user=3",), limit=4)
    assert [row.record.id for row in sink.rows] == ["r3", "r10", "r17", "r24"]
    assert outcome.rows == 4
    assert sink.totals
    assert sink.totals.partial


def test_a_limit_holds_over_all_starts(tmp_path: Path) -> None:
    source = MemorySource(records(ROWS))
    sink = MemorySink(ordered=True, fate=Fate(at=60))
    with pytest.raises(Crash):
        start(source, sink, tmp_path, window=WINDOW, limit=40)
    sink.fate = Fate()
    assert start(source, sink, tmp_path, window=WINDOW, limit=40, resume=True).rows == 40
    assert [row.record.id for row in sink.rows] == [f"r{number}" for number in range(40)]


def test_nothing_fits_the_conditions(tmp_path: Path) -> None:
    sink = MemorySink(ordered=True)
    with pytest.raises(InvalidRequest, match="no record of memory fits user=9"):
        start(MemorySource(records(5)), sink, tmp_path, where=("user=9",))
    assert not sink.visible


def test_a_tenth_of_failures_stops_a_run_before_anything_is_written(tmp_path: Path) -> None:
    sink = MemorySink(ordered=True)
    items = [*records(9), {"id": "x", "text": ""}, {"id": "y", "text": 5}]
    with pytest.raises(
        InvalidRequest, match=r"2 of 11 rows failed, more than a tenth.*memory row 10: its text is empty"
    ):
        start(MemorySource(items), sink, tmp_path)
    assert sink.written == 0
    (rejects,) = (tmp_path / "reembed").glob("*.rejects.jsonl")
    assert [json.loads(line)["code"] for line in rejects.read_text().splitlines()] == ["empty_text", "not_text"]


@pytest.mark.parametrize(("allowed", "passes"), [(0, False), (1, False), (2, True)])
def test_failures_are_allowed_as_told(tmp_path: Path, allowed: int, passes: bool) -> None:
    items = [{"id": "a", "text": ""}, {"id": "b", "text": "b"}, {"id": "c", "text": f"{BROKEN}"}]
    sink = MemorySink(ordered=True)
    if passes:
        assert start(MemorySource(items), sink, tmp_path, max_failures=allowed).rejected == 2
    else:
        with pytest.raises(InvalidRequest, match="rows failed") as caught:
            start(MemorySource(items), sink, tmp_path, max_failures=allowed)
        assert caught.value.code == "too_many_failures"


def test_a_field_that_no_record_has_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no field 'txt'; there are: id, text, user"):
        start(MemorySource(records(5)), MemorySink(ordered=True), tmp_path, template="{txt}")


def test_one_field_of_several_that_no_record_has_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert start(MemorySource(records(5)), MemorySink(ordered=True), tmp_path, template="{text} - {nots}").rows == 5
    assert "no field 'nots'" in caplog.text


def test_what_is_printed_cannot_be_resumed(tmp_path: Path) -> None:
    sink = MemorySink(ordered=True, resumable=False)
    start(MemorySource(records(5)), sink, tmp_path)
    assert not list((tmp_path / "reembed").glob("*.json"))
    with pytest.raises(ConfigurationError, match="cannot be resumed"):
        start(MemorySource(records(5)), sink, tmp_path, resume=True)


@pytest.mark.parametrize("text", ["{}", '{"version": 0}', "[]", "not JSON"])
def test_a_checkpoint_of_another_release_is_told(tmp_path: Path, text: str) -> None:
    source = MemorySource(records(ROWS))
    sink = unfinished(tmp_path, source)
    (path,) = (tmp_path / "reembed").glob("*.json")
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="delete it"):
        start(source, sink, tmp_path, window=WINDOW, resume=True)


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="HEADRACE_STATE_DIR"):
        start(MemorySource(records(5)), MemorySink(ordered=True), tmp_path / "file")
