"""Judged sets in BEIR's layout: what is read, what is left out, and what is refused in one clear line."""

import json
import sys
from pathlib import Path

import pytest

from console.judging import packaged_set, read_sample, read_set
from producer.errors import HeadraceError
from workers.judged import measuring_library

LIMIT = 100


def records(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


CORPUS = records(
    {"_id": "d1", "title": "Lakes", "text": "Where one may swim."},
    {"_id": "d2", "title": "", "text": " "},
    {"_id": 3, "text": "A tax form.", "metadata": {}},
)
QUERIES = records({"_id": "q1", "text": "swim"}, {"_id": "q2", "text": "tax"}, {"_id": "q3", "text": ""})
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t1\nq2\td1\t0\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A set of three documents and three queries, one of which is judged."""
    (tmp_path / "qrels").mkdir()
    for name, text in (("corpus.jsonl", CORPUS), ("queries.jsonl", QUERIES), ("qrels/test.tsv", QRELS)):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_what_is_judged_is_read_and_the_rest_is_left_out(folder: Path) -> None:
    judged = read_set(folder, name="small", max_text_bytes=LIMIT)

    assert judged.queries == {"q1": "swim"}
    assert judged.relevance == {"q1": {"d1": 2, "d2": 1}}
    assert judged.document_ids == ("d1", "3"), "a document without a text is not embedded, though it may be judged"
    assert list(judged.documents()) == [("d1", "Lakes Where one may swim."), ("3", "A tax form.")]


@pytest.mark.parametrize("name", ["qrels.txt", "qrels/test.qrels", "elsewhere"])
def test_judgements_may_be_trecs(folder: Path, name: str) -> None:
    (folder / "qrels" / "test.tsv").unlink()
    (folder / name).write_text("q2 0 3 1\n")

    qrels = folder / name if name == "elsewhere" else None
    assert read_set(folder, name="small", qrels=qrels, max_text_bytes=LIMIT).relevance == {"q2": {"3": 1}}


def test_the_packaged_set_is_complete() -> None:
    judged = packaged_set(max_text_bytes=65536)

    assert (len(judged.queries), len(judged.document_ids)) == (30, 100)
    assert {document_id for document_id, _ in judged.documents()} == set(judged.document_ids)


@pytest.mark.parametrize(
    ("file", "text", "reason"),
    [
        ("corpus.jsonl", None, "corpus.jsonl cannot be read: No such file"),
        ("queries.jsonl", None, "queries.jsonl cannot be read: No such file"),
        ("qrels/test.tsv", None, "none of qrels/test.tsv, qrels/test.qrels, qrels.txt is there"),
        ("corpus.jsonl", CORPUS + "{", "corpus.jsonl line 4 is not JSON"),
        ("queries.jsonl", "[1]\n", "queries.jsonl line 1 is not a JSON object with an '_id'"),
        ("corpus.jsonl", records({"_id": "d1"}), "line 1 has no 'text' that is a string"),
        ("corpus.jsonl", records({"_id": "d 1", "text": "x"}), "line 1 has an '_id' that is not one word"),
        ("corpus.jsonl", CORPUS + records({"_id": "3", "text": "again"}), "line 4 has the _id 3, as a line before"),
        ("queries.jsonl", QUERIES + QUERIES, "line 4 has the _id q1, as a line before"),
        ("corpus.jsonl", records({"_id": "d1", "text": "x" * 101}), "line 1: the document is 101 bytes long"),
        ("corpus.jsonl", records({"_id": "d1", "text": " "}), "corpus.jsonl holds no document with a text"),
        ("qrels/test.tsv", QRELS + "q7\td1\t1\n", "line 5 judges query q7, which queries.jsonl does not hold"),
        ("qrels/test.tsv", QRELS + "q1\td7\t1\n", "line 5 judges document d7, which corpus.jsonl does not hold"),
        ("qrels/test.tsv", QRELS + "q1\td1\t1\n", "line 5 judges document d1 a second time for query q1"),
        ("qrels/test.tsv", QRELS + "q3\td1\t1\n", "queries.jsonl line 3: the query is empty"),
        ("qrels/test.tsv", "q1\td1\t0\n", "judges no document relevant"),
        ("qrels/test.tsv", "", "judges no document relevant"),
    ],
)
def test_what_is_no_judged_set_is_told(folder: Path, file: str, text: str | None, reason: str) -> None:
    if text is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(text)

    with pytest.raises(HeadraceError, match=reason):
        read_set(folder, name="small", max_text_bytes=LIMIT)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(HeadraceError, match="it is not a folder"):
        read_sample(tmp_path / "none")


def test_the_library_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)

    with pytest.raises(HeadraceError, match=r"ir-measures, which is not installed: pip install 'headrace\[eval\]'"):
        measuring_library()
