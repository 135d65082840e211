"""What rankings are worth: the nearest documents, measures by judgements, agreement of two systems. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from console.trec import Rankings
from producer.results import Vector
from workers.judged import measuring_library

_DECIMALS = 6
"""Of a cosine of float32 vectors; what is behind is rounding, and would order equal texts by chance."""

AGREEMENT_DEPTH = 3


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far one order agrees with another's, over the queries that both rank.

    `top_1` is the share of queries with the same first document; `recall_3` the share of the other's first three
    that are among one's own first three.
    """

    queries: int
    top_1: float
    recall_3: float


class NearestDocuments:
    """The `kept` documents of the highest cosine for each query, of vectors that come chunk by chunk."""

    def __init__(self, query_vectors: Vector, kept: int) -> None:
        self._queries = _unit(query_vectors)
        self._kept = kept
        self._scores = np.empty((len(query_vectors), 0))
        self._positions = np.empty((len(query_vectors), 0), dtype=np.int64)
        self._seen = 0

    def add(self, vectors: Vector) -> None:
        """Take the next documents' vectors: shape (n, dimension)."""
        scores = np.hstack([self._scores, np.round(self._queries @ _unit(vectors).T, _DECIMALS)])
        numbers = np.arange(self._seen, self._seen + len(vectors))
        positions = np.hstack([self._positions, np.broadcast_to(numbers, (len(scores), len(vectors)))])
        # Stable: of equal scores the earlier document comes first, as in one sort over all.
        best = np.argsort(-scores, axis=1, kind="stable")[:, : self._kept]
        self._scores = np.take_along_axis(scores, best, axis=1)
        self._positions = np.take_along_axis(positions, best, axis=1)
        self._seen += len(vectors)

    def rankings(self, query_ids: Sequence[str], document_ids: Sequence[str]) -> dict[str, dict[str, float]]:
        """The cosines by id, best first; ids are in the order of the vectors.

        A document of the query's own id is left out, as BEIR does: in some of its sets queries are documents, too.
        """
        return {
            query_id: {
                document_ids[position]: float(score)
                for position, score in zip(self._positions[row], self._scores[row], strict=True)
                if document_ids[position] != query_id
            }
            for row, query_id in enumerate(query_ids)
        }


def reordered(ranking: Mapping[str, float], scores: Mapping[str, float]) -> dict[str, float]:
    """Order a ranking's first documents by their new scores; the others stay behind them, in their order.

    The others get scores below all new ones, in steps of 1. Documents of equal score stay in their order.
    """
    first = {document_id: scores[document_id] for document_id in sorted(scores, key=_by(ranking, scores))}
    lowest = min(first.values(), default=0.0)
    behind = [document_id for document_id in ranking if document_id not in first]
    return {**first, **{document_id: lowest - step for step, document_id in enumerate(behind, 1)}}


def measured(relevance: Mapping[str, Mapping[str, int]], rankings: Rankings, *, k: int) -> dict[str, float]:
    """Means over the judged queries, by name: nDCG@10, R@3, R@k, RR@10, Success@1. A query not ranked counts 0.

    Raises:
        ConfigurationError: the library that computes them is not installed.
    """
    library = measuring_library()
    recalls = [library.R @ depth for depth in sorted({AGREEMENT_DEPTH, k})]
    return _means([library.nDCG @ 10, *recalls, library.RR @ 10, library.Success @ 1], relevance, rankings)


def agreement(rankings: Rankings, others: Rankings) -> Agreement:
    """Compare with another system's order, whose first documents are taken for the relevant ones."""
    library = measuring_library()
    shared = [query_id for query_id in rankings if others.get(query_id)]
    if not shared:
        return Agreement(queries=0, top_1=0.0, recall_3=0.0)
    found = {}
    for measure, depth in ((library.Success @ 1, 1), (library.R @ AGREEMENT_DEPTH, AGREEMENT_DEPTH)):
        relevance = {query_id: dict.fromkeys(islice(others[query_id], depth), 1) for query_id in shared}
        (found[depth],) = _means([measure], relevance, {key: rankings[key] for key in shared}).values()
    return Agreement(queries=len(shared), top_1=found[1], recall_3=found[AGREEMENT_DEPTH])


def _means(measures: Sequence[Any], relevance: Mapping[str, Mapping[str, int]], rankings: Rankings) -> dict[str, float]:
    """Ranks stand in for scores, since the library's parts order equal scores each in a way of its own."""
    library = measuring_library()
    judged = {query_id: dict(grades) for query_id, grades in relevance.items()}
    ranked = {
        query_id: {document_id: -float(rank) for rank, document_id in enumerate(rankings[query_id])}
        for query_id in judged
        if rankings.get(query_id)
    }
    found = library.calc_aggregate(list(measures), judged, ranked)
    return {str(measure): float(found[measure]) for measure in measures}


def _by(ranking: Mapping[str, float], scores: Mapping[str, float]) -> Any:
    places = {document_id: place for place, document_id in enumerate(ranking)}
    return lambda document_id: (-scores[document_id], places[document_id])


def _unit(vectors: Vector) -> np.ndarray[Any, np.dtype[np.float64]]:
    exact = vectors.astype(np.float64)
    norms = np.linalg.norm(exact, axis=1, keepdims=True)
    unit: np.ndarray[Any, np.dtype[np.float64]] = exact / np.where(norms > 0, norms, 1.0)
    return unit
