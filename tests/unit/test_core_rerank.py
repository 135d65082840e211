"""The flow of rerank: sorting, cutting, cached pairs, and the fallback on failure but not on bad input."""

import math
from typing import Any

import pytest

from producer.errors import HeadraceError, InvalidRequest, InvalidText
from producer.wire.messages import ScoreReply
from tests.unit.fakes import FakeServer, ManualClock, failure, nobody, offline_core, pair


def test_a_ranking_is_sorted_and_ties_keep_the_order_passed(clock: ManualClock, server: FakeServer) -> None:
    documents = ["bb", "a", "cc ", "dddd", "aa"]

    result = server.run(offline_core(clock).rerank("q", documents, None, None, None))

    assert [(item.index, item.score) for item in result.results] == [(3, 4.0), (0, 2.0), (2, 2.0), (4, 2.0), (1, 1.0)]
    assert [item.document for item in result.results] == ["dddd", "bb", "cc ", "aa", "a"], "documents as passed"
    assert (result.model, result.fallback_used, result.fallback_reason) == ("offline", False, None)


@pytest.mark.parametrize(("top_n", "indexes"), [(1, [2]), (2, [2, 1]), (3, [2, 1, 0]), (9, [2, 1, 0])])
def test_a_ranking_is_cut_to_top_n(clock: ManualClock, server: FakeServer, top_n: int, indexes: list[int]) -> None:
    result = server.run(offline_core(clock).rerank("q", ["a", "bb", "ccc"], top_n, None, None))

    assert [item.index for item in result.results] == indexes


def test_only_pairs_that_are_not_cached_are_scored_and_each_once(clock: ManualClock, server: FakeServer) -> None:
    server.put(pair("hit"), ScoreReply(score=9.0))

    result = server.run(offline_core(clock).rerank("q", ["new", "hit", "new"], None, None, None))

    assert server.sent == ["new"]
    assert result.cached_pairs == 1
    assert [(item.index, item.score) for item in result.results] == [(1, 9.0), (0, 3.0), (2, 3.0)]


def test_no_documents_are_an_empty_ranking(clock: ManualClock, server: FakeServer) -> None:
    result = server.run(offline_core(clock).rerank("q", [], 10, None, None))

    assert (result.results, server.enqueued, result.fallback_used) == ((), [], False)


def failing_server(clock: ManualClock, code: str) -> FakeServer:
    server = FakeServer(
        clock, work=nobody if code == "result_timeout" else lambda row: failure("model_failed", at_ms=9)
    )
    server.full_calls = 1 if code == "queue_full" else 0
    return server


@pytest.mark.parametrize("code", ["model_failed", "result_timeout", "queue_full"])
def test_fallback_scores_rank_if_the_workers_cannot(clock: ManualClock, code: str) -> None:
    result = server_rank(failing_server(clock, code), clock, fallback=[0.1, 0.3, 0.3])

    assert [(item.index, item.score) for item in result.results] == [(1, 0.3), (2, 0.3)]
    assert result.fallback_used
    assert (result.fallback_reason or "").startswith(f"{code}: ")


@pytest.mark.parametrize("code", ["model_failed", "result_timeout", "queue_full"])
def test_without_fallback_scores_the_error_is_raised(clock: ManualClock, code: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        server_rank(failing_server(clock, code), clock, fallback=None)
    assert caught.value.code == code


def server_rank(server: FakeServer, clock: ManualClock, fallback: list[float] | None) -> Any:
    return server.run(offline_core(clock).rerank("q", ["a", "b", "c"], 2, fallback, 1.0))


@pytest.mark.parametrize(
    ("question", "documents", "top_n", "scores", "error"),
    [
        ("", ["a"], None, [1.0], InvalidText),
        ("q", [""], None, [1.0], InvalidText),
        ("q", ["a"] * 1001, None, [1.0] * 1001, InvalidRequest),
        ("q", ["a"], 0, [1.0], InvalidRequest),
        ("q", ["a", "b"], None, [1.0], InvalidRequest),
        ("q", ["a"], None, [math.nan], InvalidRequest),
    ],
)
def test_invalid_input_is_never_covered_by_the_fallback(
    clock: ManualClock,
    server: FakeServer,
    question: str,
    documents: Any,
    top_n: Any,
    scores: Any,
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        server.run(offline_core(clock).rerank(question, documents, top_n, scores, None))
    assert server.lookups == []
