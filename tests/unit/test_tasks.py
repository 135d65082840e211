"""Rows to replies with small models: prefixes, one finite result for each row or an error; and the self-test."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from producer.wire.codec import decode_vector
from producer.wire.keys import Kind
from producer.wire.messages import ScoreReply
from producer.wire.models import ModelSpec
from tests.unit.fakes import pair, passage, query
from workers.selftest import embedder_is_invariant, reranker_is_invariant
from workers.tasks import EmbedTask, Measure, ModelFailed, RerankTask

SPEC = ModelSpec(task="embed", name="e5", query_prefix="query: ", passage_prefix="passage: ")


class SmallEmbedder:
    """Two numbers for a text: its length, and the length of its longest batch-mate times `leak`."""

    dimension = 2

    def __init__(
        self, *, leak: float = 0.0, output: Callable[[np.ndarray[Any, Any]], Any] = lambda vectors: vectors
    ) -> None:
        self.leak = leak
        self.output = output
        self.seen: list[list[str]] = []

    def measure(self, texts: Sequence[str]) -> list[Measure]:
        self.seen.append(list(texts))
        return [Measure(tokens=len(text), truncated=False) for text in texts]

    def embed(self, texts: Sequence[str]) -> Any:
        self.seen.append(list(texts))
        longest = max(map(len, texts))
        return self.output(np.array([[len(text), self.leak * longest] for text in texts], dtype=np.float32))


class SmallReranker:
    """The score of a pair is the length of its document, plus the size of the batch times `leak`."""

    def __init__(self, *, leak: float = 0.0, output: Callable[[list[float]], Any] = lambda scores: scores) -> None:
        self.leak = leak
        self.output = output
        self.seen: list[list[tuple[str, str]]] = []

    def measure(self, pairs: Sequence[tuple[str, str]]) -> list[Measure]:
        return [Measure(tokens=len(question) + len(document), truncated=False) for question, document in pairs]

    def score(self, pairs: Sequence[tuple[str, str]]) -> Any:
        self.seen.append(list(pairs))
        return self.output([len(document) + self.leak * len(pairs) for _, document in pairs])


def test_each_kind_of_text_gets_its_prefix_in_order() -> None:
    model = SmallEmbedder()

    replies = EmbedTask(model, SPEC).run([passage("p"), query("qq"), passage("ppp")])

    assert model.seen == [["passage: p", "query: qq", "passage: ppp"]]
    assert [decode_vector(reply).tolist() for reply in replies] == [[10, 0], [9, 0], [12, 0]]


def test_a_text_is_measured_with_its_prefix() -> None:
    assert EmbedTask(SmallEmbedder(), SPEC).measure([query("qq")]) == [Measure(tokens=9, truncated=False)]


def test_each_task_accepts_its_own_kinds_only() -> None:
    embed, rerank = EmbedTask(SmallEmbedder(), SPEC), RerankTask(SmallReranker())

    assert [kind for kind in Kind if embed.accepts(kind)] == [Kind.QUERY, Kind.PASSAGE]
    assert [kind for kind in Kind if rerank.accepts(kind)] == [Kind.PAIR]
    assert (embed.name, rerank.name) == ("embed", "rerank")


BAD_VECTORS: dict[str, Callable[[np.ndarray[Any, Any]], Any]] = {
    "one fewer": lambda vectors: vectors[:-1],
    "one more": lambda vectors: np.vstack([vectors, vectors[:1]]),
    "none": lambda vectors: vectors[:0],
    "wrong dimension": lambda vectors: vectors[:, :1],
    "a dimension too many": lambda vectors: vectors[:, :, None],
    "flat": lambda vectors: vectors.ravel(),
    "not a number in the last": lambda vectors: vectors * [[1, 1], [1, np.nan]],
    "infinity": lambda vectors: vectors + np.inf,
    "more than a float32 holds": lambda vectors: vectors.astype(np.float64) * 1e300,
    "nothing": lambda vectors: None,
}


@pytest.mark.parametrize("output", BAD_VECTORS.values(), ids=BAD_VECTORS.keys())
def test_an_output_that_is_not_one_finite_vector_for_each_row_is_a_failure(output: Any) -> None:
    with pytest.raises(ModelFailed) as caught:
        EmbedTask(SmallEmbedder(output=output), SPEC).run([query("a"), query("b")])
    assert caught.value.code == "model_failed"


def test_vectors_of_any_float_type_and_layout_become_float32() -> None:
    model = SmallEmbedder(output=lambda vectors: np.asfortranarray(vectors.astype(np.float16)).tolist())

    replies = EmbedTask(model, SPEC).run([query("a"), query("bb")])

    assert [decode_vector(reply).tolist() for reply in replies] == [[8, 0], [9, 0]]


def test_pairs_of_several_queries_are_scored_in_one_call_in_order() -> None:
    model = SmallReranker()

    replies = RerankTask(model).run([pair("ddd", "q1"), pair("d", "q2"), pair("dd", "q1")])

    assert model.seen == [[("q1", "ddd"), ("q2", "d"), ("q1", "dd")]]
    assert replies == [ScoreReply(score=3.0), ScoreReply(score=1.0), ScoreReply(score=2.0)]
    assert all(type(reply.score) is float for reply in replies)


BAD_SCORES: dict[str, Callable[[list[float]], Any]] = {
    "one fewer": lambda scores: scores[:-1],
    "one more": lambda scores: [*scores, 0.0],
    "none": lambda scores: [],
    "a column": lambda scores: [[score] for score in scores],
    "one number": lambda scores: scores[0],
    "not a number": lambda scores: [scores[0], np.nan],
    "infinity": lambda scores: [scores[0], -np.inf],
}


@pytest.mark.parametrize("output", BAD_SCORES.values(), ids=BAD_SCORES.keys())
def test_an_output_that_is_not_one_finite_score_for_each_pair_is_a_failure(output: Any) -> None:
    with pytest.raises(ModelFailed):
        RerankTask(SmallReranker(output=output)).run([pair("a"), pair("b")])


@pytest.mark.parametrize(("leak", "invariant"), [(0.0, True), (1e-8, True), (0.01, False), (1.0, False)])
def test_the_self_test_flags_a_model_whose_output_depends_on_the_batch(leak: float, invariant: bool) -> None:
    assert embedder_is_invariant(SmallEmbedder(leak=leak)) is invariant
    assert reranker_is_invariant(SmallReranker(leak=leak * 100)) is invariant


def test_the_self_test_flags_a_model_that_gives_no_numbers() -> None:
    assert not embedder_is_invariant(SmallEmbedder(output=lambda vectors: vectors * np.nan))
    assert not reranker_is_invariant(SmallReranker(output=lambda scores: [np.nan] * len(scores)))
