"""Runs a model over the judged sample: its outputs, its nDCG@10, its speed, and whether batching changes anything."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from producer.wire.models import TaskName, prefixes
from workers.budget import batches
from workers.judged import JudgedSample, ndcg_at_10
from workers.models.fastembed_models import FastembedEmbedder, FastembedReranker, load_embedder, load_reranker
from workers.models.optimize_graph import Feed
from workers.selftest import agree, embedder_is_invariant, reranker_is_invariant

BATCH_TOKENS = 1024
_CANDIDATES = 6
"""Documents of a query that a reranker ranks: all hundred would take minutes."""

_TIMED_ROWS = 40
"""About so many rows are timed, and compared alone and in batches."""

Array = np.ndarray[Any, Any]


class Subject(Protocol):
    """A loaded model together with what it is judged by. Outputs are in the order of `rows`."""

    rows: Sequence[Any]
    tokens: Sequence[int]

    def run(self, rows: Sequence[Any]) -> Array:
        """Run rows as one batch; float32, one line a row."""
        ...

    def weights_sha256(self) -> str:
        """Fingerprint of the model's files."""
        ...

    def invariant(self) -> bool:
        """Whether the worker's self-test lets its rows share batches."""
        ...

    def ndcg(self, outputs: Array) -> float:
        """nDCG@10 of what `run` gave for all rows."""
        ...

    def agreement(self, outputs: Array, original: Array) -> float:
        """How much the outputs are like the original's, 1 at most."""
        ...


class _Loaded:
    """What an embedder and a reranker have in common: the model that fastembed has loaded."""

    _model: FastembedEmbedder | FastembedReranker

    @property
    def fastembed_model(self) -> Any:
        """fastembed's own object, which knows the model's files and holds its session."""
        return self._model._model.model

    def weights_sha256(self) -> str:
        return self._model.weights_sha256()


class EmbedderSubject(_Loaded):
    """An embedder: its rows are the sample's queries, then its documents, each with its prefix."""

    _model: FastembedEmbedder

    def __init__(self, model: FastembedEmbedder, sample: JudgedSample, name: str) -> None:
        self._model = model
        self._sample = sample
        query_prefix, passage_prefix = prefixes(name)
        queries = [query_prefix + text for text in sample.queries.values()]
        self.rows = [*queries, *(passage_prefix + text for text in sample.documents.values())]
        self.tokens = [measure.tokens for measure in model.measure(self.rows)]

    def run(self, rows: Sequence[str]) -> Array:
        return self._model.embed(rows)

    def invariant(self) -> bool:
        return embedder_is_invariant(self._model)

    def ndcg(self, outputs: Array) -> float:
        count = len(self._sample.queries)
        products = outputs[:count] @ outputs[count:].T
        rankings = {
            query_id: dict(zip(self._sample.documents, map(float, line), strict=True))
            for query_id, line in zip(self._sample.queries, products, strict=True)
        }
        return ndcg_at_10(self._sample, rankings)

    def agreement(self, outputs: Array, original: Array) -> float:
        lengths = np.linalg.norm(outputs, axis=1) * np.linalg.norm(original, axis=1)
        return float(np.mean(np.sum(outputs * original, axis=1) / lengths))


class RerankerSubject(_Loaded):
    """A reranker: its rows are pairs of each query with some documents of the sample."""

    _model: FastembedReranker

    def __init__(self, model: FastembedReranker, sample: JudgedSample) -> None:
        self._model = model
        self._sample = sample
        self._chosen = {query_id: sample.candidates(query_id, _CANDIDATES) for query_id in sample.queries}
        self.rows = [
            (sample.queries[query_id], sample.documents[document_id])
            for query_id, chosen in self._chosen.items()
            for document_id in chosen
        ]
        self.tokens = [measure.tokens for measure in model.measure(self.rows)]

    def run(self, rows: Sequence[tuple[str, str]]) -> Array:
        return np.array(self._model.score(rows), dtype=np.float32)[:, None]

    def invariant(self) -> bool:
        return reranker_is_invariant(self._model)

    def ndcg(self, outputs: Array) -> float:
        scores = iter(outputs[:, 0].tolist())
        return ndcg_at_10(
            self._sample, {key: {document: next(scores) for document in chosen} for key, chosen in self._chosen.items()}
        )

    def agreement(self, outputs: Array, original: Array) -> float:
        return float(np.corrcoef(outputs[:, 0], original[:, 0])[0, 1])


def open_subject(
    task: TaskName, name: str, sample: JudgedSample, *, known_as: str, cache_dir: Path, threads: int
) -> EmbedderSubject | RerankerSubject:
    """Load a model, each from its own files; `known_as` decides on prefixes. Raises as `load_embedder` does.

    A copy that is prepared for sharing would give the same, but neither tools nor quantisers can read such a graph.
    """
    if task == "embed":
        embedder = load_embedder(name, cache_dir=cache_dir, threads=threads, prepare_bytes=math.inf)
        return EmbedderSubject(embedder, sample, known_as)
    reranker = load_reranker(name, cache_dir=cache_dir, threads=threads, prepare_bytes=math.inf)
    return RerankerSubject(reranker, sample)


@dataclass(frozen=True, kw_only=True)
class Arrangement:
    """A model, what it gives for each row alone, and whether its rows may be batched."""

    subject: Subject
    outputs: Array
    batch_invariant: bool


def arrange(subject: Subject) -> Arrangement:
    """Run each row alone, then some in batches, and batch from then on only if that changes nothing."""
    outputs = np.concatenate([subject.run([row]) for row in subject.rows])
    share = _share(subject)
    rows, alone = subject.rows[::share], outputs[::share]
    invariant = subject.invariant() and all(
        agree(subject.run([rows[index] for index in batch]), alone[batch])
        for batch in batches(subject.tokens[::share], BATCH_TOKENS)
    )
    return Arrangement(subject=subject, outputs=outputs, batch_invariant=invariant)


def _share(subject: Subject) -> int:
    return max(1, len(subject.rows) // _TIMED_ROWS)


def rows_per_s(arrangement: Arrangement) -> float:
    """Time a part of the rows, the same for every model, in the batches that a pool would make of them."""
    subject = arrangement.subject
    rows, tokens = subject.rows[:: _share(subject)], subject.tokens[:: _share(subject)]
    budget_tokens = BATCH_TOKENS if arrangement.batch_invariant else 1
    formed = [[rows[index] for index in batch] for batch in batches(tokens, budget_tokens)]
    started = time.perf_counter()
    for batch in formed:
        subject.run(batch)
    return len(rows) / (time.perf_counter() - started)


def record_feeds(model: Any, run: Callable[[], object]) -> list[Feed]:
    """Note what fastembed feeds to the session of its model (its attribute `model`) while `run` runs."""
    session = model.model
    feeds: list[Feed] = []

    class Recorder:
        def run(self, names: Any, feed: Feed) -> Any:
            feeds.append(dict(feed))
            return session.run(names, feed)

        def __getattr__(self, name: str) -> Any:
            return getattr(session, name)

    model.model = Recorder()
    try:
        run()
    finally:
        model.model = session
    return feeds
