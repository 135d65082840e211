"""The two tasks behind one protocol: what a row costs, and how a batch of rows becomes replies. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from producer.errors import HeadraceError
from producer.wire.codec import encode_vector
from producer.wire.keys import Kind
from producer.wire.messages import EmbeddingReply, Row, ScoreReply
from producer.wire.models import ModelSpec, TaskName


class ModelFailed(HeadraceError):
    """The model raised, or gave back something that is not a result."""

    code = "model_failed"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What a row costs: its tokens after truncation, and whether anything was cut off."""

    tokens: int
    truncated: bool


class EmbeddingModel(Protocol):
    """A loaded embedding model."""

    dimension: int

    def measure(self, texts: Sequence[str]) -> list[Measure]: ...

    def embed(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """Run the texts as one batch: shape (n, dimension)."""
        ...


class RerankingModel(Protocol):
    """A loaded cross-encoder."""

    def measure(self, pairs: Sequence[tuple[str, str]]) -> list[Measure]: ...

    def score(self, pairs: Sequence[tuple[str, str]]) -> Sequence[float]:
        """Run the (query, document) pairs, of any number of queries, as one batch: n scores."""
        ...


class Task(Protocol):
    """What the engine needs to know of a task."""

    name: TaskName

    def accepts(self, kind: Kind) -> bool:
        """Whether rows of that kind are this task's."""
        ...

    def measure(self, rows: Sequence[Row]) -> list[Measure]:
        """Tell what each row costs."""
        ...

    def run(self, rows: Sequence[Row]) -> Sequence[EmbeddingReply | ScoreReply]:
        """Compute the rows as one batch, one reply each, in order.

        Raises:
            ModelFailed: the output is not one finite result for each row.
        """
        ...


class EmbedTask:
    """Texts to vectors, with the model's prefix for the kind in front."""

    name: TaskName = "embed"

    def __init__(self, model: EmbeddingModel, spec: ModelSpec) -> None:
        self._model = model
        self._prefix = {Kind.QUERY: spec.query_prefix, Kind.PASSAGE: spec.passage_prefix}

    def accepts(self, kind: Kind) -> bool:
        return kind in self._prefix

    def measure(self, rows: Sequence[Row]) -> list[Measure]:
        return self._model.measure(self._texts(rows))

    def run(self, rows: Sequence[Row]) -> Sequence[EmbeddingReply]:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            vectors = np.asarray(self._model.embed(self._texts(rows))).astype(np.float32, copy=False)
        expected = (len(rows), self._model.dimension)
        if vectors.shape != expected:
            raise ModelFailed(f"the model gave an output of shape {vectors.shape}, not {expected}")
        if not np.isfinite(vectors).all():
            raise ModelFailed("the model gave a vector with NaN or infinity")
        return [encode_vector(vector) for vector in vectors]

    def _texts(self, rows: Sequence[Row]) -> list[str]:
        return [self._prefix[row.kind] + row.text for row in rows]


class RerankTask:
    """(query, document) pairs to scores."""

    name: TaskName = "rerank"

    def __init__(self, model: RerankingModel) -> None:
        self._model = model

    def accepts(self, kind: Kind) -> bool:
        return kind is Kind.PAIR

    def measure(self, rows: Sequence[Row]) -> list[Measure]:
        return self._model.measure(_pairs(rows))

    def run(self, rows: Sequence[Row]) -> Sequence[ScoreReply]:
        scores = np.asarray(self._model.score(_pairs(rows)), dtype=np.float64)
        if scores.shape != (len(rows),):
            raise ModelFailed(f"the model gave scores of shape {scores.shape}, not {(len(rows),)}")
        if not np.isfinite(scores).all():
            raise ModelFailed("the model gave a score that is NaN or infinite")
        return [ScoreReply(score=float(score)) for score in scores]


def _pairs(rows: Sequence[Row]) -> list[tuple[str, str]]:
    return [(row.query or "", row.text) for row in rows]
