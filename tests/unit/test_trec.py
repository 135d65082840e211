"""TREC's files: what is written reads back, equal scores have one order, and what is none is told with its line."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.trec import Run, read_judgements, read_run, run_lines
from producer.errors import ConfigurationError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where a test writes its file."""
    return tmp_path / "file.txt"


def test_a_run_is_ordered_by_score_and_then_by_rank(file: Path) -> None:
    file.write_text("q2 Q0 d9 1 0.5 bm25\n\nq1 Q0 a 2 7 bm25\nq1 Q0 b 1 7.0 bm25\nq1\tQ0\tc\t3\t1e1\tbm25\n")

    run = read_run(file)

    assert run.name == "bm25"
    assert {query: list(ranking.items()) for query, ranking in run.rankings.items()} == {
        "q2": [("d9", 0.5)],
        "q1": [("c", 10.0), ("b", 7.0), ("a", 7.0)],
    }


def test_a_run_is_written_with_ranks_from_one_and_scores_that_fall() -> None:
    run = Run(name="tag", rankings={"q": {"b": 2.5, "a": 2.5, "c": -1.0}})

    assert list(run_lines(run)) == ["q Q0 b 1 2.5 tag", "q Q0 a 2 2.4999975 tag", "q Q0 c 3 -1 tag"]


@settings(max_examples=50, deadline=None)
@given(scores=st.lists(st.floats(-1e4, 1e4).map(lambda score: round(score, 2)), min_size=1, max_size=30))
def test_what_is_written_reads_back_in_order(tmp_path_factory: pytest.TempPathFactory, scores: list[float]) -> None:
    file = tmp_path_factory.getbasetemp() / "run.txt"
    ranking = {f"d{number}": score for number, score in enumerate(sorted(scores, reverse=True))}
    file.write_text("\n".join(run_lines(Run(name="tag", rankings={"q": ranking}))))

    found = read_run(file).rankings["q"]

    assert list(found) == list(ranking)
    assert all(math.isclose(found[key], ranking[key], rel_tol=1e-4, abs_tol=1e-4) for key in ranking)
    assert len(set(found.values())) == len(ranking), "no two are equal, which tools order each in a way of its own"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "holds no run"),
        ("q Q0 a 1 0.5 tag\nq a 0.5\n", "line 2 is not of a TREC run"),
        ("q Q0 a first 0.5 tag\n", "line 1 is not of a TREC run"),
        ("q Q0 a 1 nan tag\n", "line 1 has a score that is not a number"),
        ("q Q0 a 1 0.5 tag\nq Q0 a 2 0.5 tag\n", "line 2 ranks document a a second time for query q"),
    ],
)
def test_what_is_no_run_is_told(file: Path, text: str, reason: str) -> None:
    file.write_text(text)

    with pytest.raises(ConfigurationError, match=reason):
        read_run(file)


@pytest.mark.parametrize(
    "text",
    [
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n",
        "q1\td1\t2\nq1\td2\t0\n",
    ],
)
def test_judgements_are_read_in_beirs_form(file: Path, text: str) -> None:
    file.write_text(text)

    assert [(row.query_id, row.document_id, row.grade) for row in read_judgements(file)] == [
        ("q1", "d1", 2),
        ("q1", "d2", 0),
    ]


def test_judgements_are_read_in_trecs_form(file: Path) -> None:
    file.write_text("301 0 FBIS3-10082 1\n301\t0\tFBIS3-10169  -1\n\n")

    found = [(row.place, row.query_id, row.document_id, row.grade) for row in read_judgements(file)]

    assert found == [
        (f"{file} line 1", "301", "FBIS3-10082", 1),
        (f"{file} line 2", "301", "FBIS3-10169", -1),
    ]


@pytest.mark.parametrize("line", ["q1 d1", "q1 0 d1 x 2", "q1 0 d1 good", "q1\td1\t1.5", "{}"])
def test_what_is_no_judgement_is_told(file: Path, line: str) -> None:
    file.write_text(f"q1 0 d1 1\n{line}\n")

    with pytest.raises(ConfigurationError, match="line 2 is no judgement"):
        list(read_judgements(file))


def test_a_file_that_is_not_text_is_told(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_run(file)
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        list(read_judgements(file.with_name("none")))
