"""What the calls return: plain frozen records."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from producer.errors import HeadraceError, MalformedMessage

Vector = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, kw_only=True)
class EmbedResult:
    """Vectors with their circumstances: `embeddings` is float32, shape (n, dimension), in the order of the texts."""

    embeddings: Vector
    cached: tuple[bool, ...]
    model: str
    latency_ms: float

    @property
    def dimension(self) -> int:
        return int(self.embeddings.shape[1])

    def vector(self, index: int) -> Vector:
        """One of the vectors: float32, shape (dimension,)."""
        vector: Vector = self.embeddings[index]
        return vector


@dataclass(frozen=True, kw_only=True)
class RowOutcome:
    """What became of text number `index`: a vector (float32, shape (dimension,)), or an error; one of them is None."""

    index: int
    vector: Vector | None
    error: HeadraceError | None
    cached: bool
    """The vector was there already."""

    def checked(self) -> Vector:
        """The vector; raises the row's error if there is none."""
        if self.vector is None:
            raise self.error or MalformedMessage("an outcome holds neither a vector nor an error")
        return self.vector


@dataclass(frozen=True, kw_only=True)
class RankedDocument:
    """One document of a ranking: its index in the list passed, its score (higher is better), its text as passed."""

    index: int
    score: float
    document: str


@dataclass(frozen=True, kw_only=True)
class RerankResult:
    """A ranking, best first. With `fallback_used` the scores are the caller's, and `fallback_reason` is the error."""

    results: tuple[RankedDocument, ...]
    model: str
    latency_ms: float
    fallback_used: bool = False
    fallback_reason: str | None = None
    cached_pairs: int = 0
