"""What rankings are worth, by hand: the nearest documents, measures, agreement, and where rerank puts what."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console.evaluation import NearestDocuments, agreement, measured, reordered

RELEVANCE = {"q1": {"a": 2, "b": 1}, "q2": {"c": 1}}


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    documents=st.integers(1, 60),
    chunk=st.integers(1, 20),
    kept=st.integers(1, 40),
)
def test_chunk_by_chunk_finds_what_one_sort_over_all_finds(seed: int, documents: int, chunk: int, kept: int) -> None:
    chance = np.random.default_rng(seed)
    # Few different directions, so that many documents are equally near.
    vectors = chance.integers(-1, 2, size=(documents, 3)).astype(np.float32) * 3
    queries = chance.normal(size=(4, 3)).astype(np.float32)
    nearest = NearestDocuments(queries, kept)
    for at in range(0, documents, chunk):
        nearest.add(vectors[at : at + chunk])
    document_ids = [f"d{number}" for number in range(documents)]
    found = nearest.rankings(["q0", "q1", "q2", "q3"], document_ids)

    for row, query in enumerate(queries.astype(float)):
        cosines = [_cosine(query, vector.astype(float)) for vector in vectors]
        best = sorted(range(documents), key=lambda number: (-cosines[number], number))[:kept]
        assert list(found[f"q{row}"]) == [f"d{number}" for number in best]
        assert list(found[f"q{row}"].values()) == [cosines[number] for number in best]


def test_the_length_of_vectors_does_not_count() -> None:
    nearest = NearestDocuments(np.array([[3.0, 4.0]], np.float32), 10)
    nearest.add(np.array([[100.0, 0.0], [0.3, 0.4], [0.0, 0.0]], np.float32))

    assert nearest.rankings(["q"], ["long", "same", "zero"]) == {"q": {"same": 1.0, "long": 0.6, "zero": 0.0}}


def test_measures_are_those_of_a_ranking_by_hand() -> None:
    pytest.importorskip("ir_measures")
    # q1: b (grade 1), a (grade 2), both found; q2: the relevant one is third.
    rankings = {"q1": {"b": 0.9, "a": 0.8, "x": 0.1}, "q2": {"x": 0.5, "y": 0.4, "c": 0.3}}

    found = measured(RELEVANCE, rankings, k=2)

    ideal = 2 + 1 / math.log2(3)
    assert found == pytest.approx(
        {
            "nDCG@10": ((1 + 2 / math.log2(3)) / ideal + 1 / math.log2(4)) / 2,
            "R@2": (1 + 0) / 2,
            "R@3": 1.0,
            "RR@10": (1 + 1 / 3) / 2,
            "Success@1": 0.5,
        }
    )
    assert list(found) == ["nDCG@10", "R@2", "R@3", "RR@10", "Success@1"]


def test_equal_scores_count_in_the_order_given() -> None:
    pytest.importorskip("ir_measures")
    for ranking, expected in (({"c": 1.0, "x": 1.0, "a": 1.0}, 1.0), ({"x": 1.0, "a": 1.0, "c": 1.0}, 1 / 3)):
        found = measured({"q": {"c": 1}}, {"q": ranking}, k=10)

        assert found["RR@10"] == pytest.approx(expected)
        assert found["Success@1"] == float(expected == 1)
        assert found["nDCG@10"] == pytest.approx(1.0 if expected == 1 else 0.5)


def test_a_query_that_is_not_ranked_counts_nothing() -> None:
    pytest.importorskip("ir_measures")
    found = measured(RELEVANCE, {"q1": {"a": 2.0, "b": 1.0}}, k=10)

    assert found == pytest.approx(dict.fromkeys(found, 0.5))


def test_agreement_takes_the_other_order_for_the_truth() -> None:
    pytest.importorskip("ir_measures")
    ours = {"q1": _order("abcd"), "q2": _order("xyz"), "q3": _order("pq")}
    # q1: the same first, two of three among ours; q2: another first, all three; q3: not ranked by the other.
    others = {"q1": _order("adbc"), "q2": _order("zyx"), "q9": _order("k")}

    found = agreement(ours, others)
    assert (found.queries, found.top_1) == (2, 0.5)
    assert found.recall_3 == pytest.approx((2 / 3 + 1) / 2)
    assert agreement(ours, {"q9": _order("k")}).queries == 0
    # Of an order of two documents both must be among our three.
    assert agreement({"q": _order("abc")}, {"q": _order("bx")}).recall_3 == pytest.approx(0.5)


def test_rerank_moves_the_first_and_leaves_the_others_behind_them() -> None:
    ranking = {"a": 0.9, "b": 0.8, "c": 0.7, "d": 0.6, "e": 0.5}

    found = reordered(ranking, {"b": -2.0, "c": 4.0, "a": -2.0})

    assert list(found.items()) == [("c", 4.0), ("a", -2.0), ("b", -2.0), ("d", -3.0), ("e", -4.0)]


def _order(ids: str) -> dict[str, float]:
    return {document_id: -float(rank) for rank, document_id in enumerate(ids)}


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return round(float(one @ other) / lengths, 6) if lengths else 0.0


def test_a_query_does_not_find_itself() -> None:
    nearest = NearestDocuments(np.array([[1.0, 0.0]], np.float32), 3)
    nearest.add(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32))
    assert list(nearest.rankings(["q1"], ["q1", "d2"])["q1"]) == ["d2"]
