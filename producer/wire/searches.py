"""Encodes and decodes the cached results of a search: ids, scores and ranks, without any payload."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from producer.errors import MalformedMessage
from producer.wire.codec import check_types, expect, pack, unpack

MOST_HITS = 100
GENERATION_BYTES = 16
_MOST_BYTES = 64 * 1024
_MOST_ID_BYTES = 512
_FIELDS: dict[str, type] = {
    "generation": bytes,
    "found_at_ms": int,
    "ids": list,
    "vector_ranks": list,
    "vector_scores": list,
    "rerank_scores": list,
}


@dataclass(frozen=True, kw_only=True)
class StoredHit:
    """One result: a point of the vector store, where the vectors alone ranked it, and its scores."""

    id: str | int
    vector_rank: int
    vector_score: float
    rerank_score: float | None


@dataclass(frozen=True, kw_only=True)
class StoredSearch:
    """The results of one search, best first, and the user's generation that it began under."""

    generation: bytes
    found_at_ms: int
    hits: tuple[StoredHit, ...]


def encode_search(search: StoredSearch) -> bytes:
    """Encode the value of a search's cache entry."""
    return pack(
        {
            "generation": search.generation,
            "found_at_ms": search.found_at_ms,
            "ids": [hit.id for hit in search.hits],
            "vector_ranks": [hit.vector_rank for hit in search.hits],
            "vector_scores": [hit.vector_score for hit in search.hits],
            "rerank_scores": [hit.rerank_score for hit in search.hits],
        }
    )


def decode_search(data: bytes) -> StoredSearch:
    """Decode the value of a search's cache entry.

    Raises:
        MalformedMessage: it is not one of this protocol version.
    """
    body = unpack(data, _MOST_BYTES, most_items=MOST_HITS)
    expect(body, required=set(_FIELDS))
    check_types(body, _FIELDS)
    if len(body["generation"]) != GENERATION_BYTES:
        raise MalformedMessage(f"the generation has not {GENERATION_BYTES} bytes")
    ids, ranks, scores, reranked = (body[name] for name in _FIELDS if _FIELDS[name] is list)
    if not len(ids) == len(ranks) == len(scores) == len(reranked):
        raise MalformedMessage("the lists of results differ in length")
    _check_each("ids", ids, _is_id)
    _check_each("vector_ranks", ranks, lambda rank: type(rank) is int and rank > 0)
    _check_each("vector_scores", scores, _is_score)
    _check_each("rerank_scores", reranked, lambda score: score is None or _is_score(score))
    hits = [
        StoredHit(id=point, vector_rank=rank, vector_score=score, rerank_score=rerank_score)
        for point, rank, score, rerank_score in zip(ids, ranks, scores, reranked, strict=True)
    ]
    return StoredSearch(generation=body["generation"], found_at_ms=body["found_at_ms"], hits=tuple(hits))


def _check_each(name: str, values: Sequence[Any], fits: Any) -> None:
    if not all(map(fits, values)):
        raise MalformedMessage(f"{name} holds what it cannot")


def _is_id(value: Any) -> bool:
    return (type(value) is int and value >= 0) or (isinstance(value, str) and 0 < len(value) <= _MOST_ID_BYTES)


def _is_score(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)
