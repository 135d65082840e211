"""The judged sample: what is packaged is complete and true to the records, and nDCG is computed over it."""

import json
from pathlib import Path

import pytest

from console.judging import packaged_sample, read_sample
from producer.errors import ConfigurationError
from workers.judged import JudgedSample, ndcg_at_10

ROOT = Path(__file__).parents[2]


def test_the_packaged_sample_judges_thirty_queries_over_the_hundred_records() -> None:
    sample = packaged_sample()
    lines = (ROOT / "console" / "records.jsonl").read_text(encoding="utf-8").splitlines()

    assert sample.documents == {record["id"]: record["text"] for record in map(json.loads, lines)}
    assert len(sample.queries) == 30 == len(sample.relevance)
    assert all(1 <= len(grades) <= 5 and set(grades.values()) <= {1, 2} for grades in sample.relevance.values())


def test_equal_records_are_judged_alike() -> None:
    sample = packaged_sample()
    twins = [
        {twin for twin, other in sample.documents.items() if other == text}
        for text in set(sample.documents.values())
        if list(sample.documents.values()).count(text) > 1
    ]

    assert len(twins) >= 3
    for grades in sample.relevance.values():
        assert all(len({grades.get(document_id, 0) for document_id in same}) == 1 for same in twins)


def test_ndcg_is_one_for_the_ideal_order_and_less_otherwise() -> None:
    pytest.importorskip("ir_measures")
    sample = JudgedSample(
        queries={"q": "swim"}, documents={"a": "lake", "b": "pool", "c": "tax"}, relevance={"q": {"a": 2, "b": 1}}
    )

    assert ndcg_at_10(sample, {"q": {"a": 3.0, "b": 2.0, "c": 1.0}}) == pytest.approx(1.0)
    # trec_eval's gains are the grades: (1 + 2 / log2(3)) / (2 + 1 / log2(3)).
    assert ndcg_at_10(sample, {"q": {"a": 2.0, "b": 3.0, "c": 1.0}}) == pytest.approx(0.8597, abs=1e-4)
    assert ndcg_at_10(sample, {"q": {"a": 1.0, "b": 0.5, "c": 3.0}}) < 0.8


def test_candidates_are_the_relevant_documents_and_those_that_share_words() -> None:
    sample = JudgedSample(
        queries={"q": "where to swim"},
        documents={"a": "a tax form", "b": "Swim here", "c": "lake", "d": "to the lake, to swim"},
        relevance={"q": {"c": 1}},
    )

    assert sample.candidates("q", 3) == ["c", "d", "b"]
    assert sample.candidates("q", 0) == ["c"]


def test_a_folder_that_is_no_sample_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no judged sample"):
        read_sample(tmp_path)


def test_judgements_of_unknown_documents_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="query q"):
        JudgedSample(queries={"q": "swim"}, documents={"a": "lake"}, relevance={"q": {"b": 1}})
