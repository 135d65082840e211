"""What a search returns: hits with their payloads, scores and ranks, and how long each stage took."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SearchHit:
    """One result: a point of the collection.

    `rank` and `vector_rank` count from 1; the latter is the place by vectors alone. `rerank_score` is None for what was
    not reranked. `text` is what the template made of the payload, empty if none of its fields has a value.
    """

    id: str | int
    rank: int
    vector_rank: int
    vector_score: float
    rerank_score: float | None
    text: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StageTimes:
    """How long each stage took, in ms; None for a stage that did not run.

    `resolve` is to ask the store what the alias stands for, `cache` is to read and write cached results (and, if there
    are any, to fetch their payloads), `total` is all of the call.
    """

    resolve: float | None
    cache: float | None
    embedding: float | None
    vector_search: float | None
    rerank: float | None
    total: float


@dataclass(frozen=True, kw_only=True)
class SearchResults:
    """Results, best first, all from one collection and by the one model that filled it.

    With `fallback_used` the order is the vector search's, and `fallback_reason` says why. `embedding_cached` is None if
    the results themselves were `cached`, and no embedding was needed. `found_at_ms` is when they were computed (Unix).
    """

    results: tuple[SearchHit, ...]
    collection: str
    model: str
    timings_ms: StageTimes
    found_at_ms: int
    cached: bool = False
    embedding_cached: bool | None = None
    fallback_used: bool = False
    fallback_reason: str | None = None
