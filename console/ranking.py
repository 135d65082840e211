"""Ranks the corpus of a judged set for its queries, all through the queue: embeddings first, then the reranker."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np

from console.evaluation import NearestDocuments, reordered
from console.judging import JudgedSet
from console.trec import Run
from producer import Producer
from producer.results import Vector
from producer.wire.models import resolve

_DOCUMENTS_PER_CHUNK = 1024
_QUERIES_PER_CALL = 256
_RERANKS_AT_ONCE = 4
"""Each is one job, which one process computes: with one at a time the others of the pool would wait."""


def by_embedding(producer: Producer, judged: JudgedSet, *, kept: int, on_row: Callable[[], None]) -> Run:
    """Rank by the cosine of embeddings; `kept` documents are kept for each query. Memory holds a chunk of vectors.

    Raises:
        HeadraceError: as `Producer.iter_embed` and `embed_many` do.
    """
    query_ids = list(judged.queries)
    nearest = NearestDocuments(_embed_queries(producer, list(judged.queries.values())), kept)
    for vectors in _chunks(producer.iter_embed((text for _, text in judged.documents()), kind="passage"), on_row):
        nearest.add(vectors)
    tag = resolve("embed", producer.settings.embed_model).tag
    return Run(name=tag, rankings=nearest.rankings(query_ids, judged.document_ids))


def by_reranking(producer: Producer, judged: JudgedSet, run: Run, *, candidates: int) -> Run:
    """Order the first `candidates` documents of each query anew, by the reranker.

    Raises:
        HeadraceError: as `Producer.rerank` does.
    """
    chosen = {query_id: list(islice(ranking, candidates)) for query_id, ranking in run.rankings.items()}
    wanted = {document_id for ids in chosen.values() for document_id in ids}
    texts = {document_id: text for document_id, text in judged.documents() if document_id in wanted}

    def scores(query_id: str) -> dict[str, float]:
        ids = chosen[query_id]
        result = producer.rerank(judged.queries[query_id], [texts[document_id] for document_id in ids])
        return {ids[item.index]: item.score for item in result.results}

    with ThreadPoolExecutor(_RERANKS_AT_ONCE) as threads:
        found = dict(zip(chosen, threads.map(scores, chosen), strict=True))
    tag = resolve("rerank", producer.settings.rerank_model).tag
    rankings = {query_id: reordered(run.rankings[query_id], found[query_id]) for query_id in chosen}
    return Run(name=f"{run.name}+{tag}", rankings=rankings)


def _embed_queries(producer: Producer, queries: list[str]) -> Vector:
    calls = range(0, len(queries), _QUERIES_PER_CALL)
    return np.vstack([producer.embed_many(queries[at : at + _QUERIES_PER_CALL], kind="query") for at in calls])


def _chunks(vectors: Iterator[Vector], on_row: Callable[[], None]) -> Iterator[Vector]:
    chunk: list[Vector] = []
    for vector in vectors:
        chunk.append(vector)
        on_row()
        if len(chunk) == _DOCUMENTS_PER_CHUNK:
            yield np.stack(chunk)
            chunk.clear()
    if chunk:
        yield np.stack(chunk)
