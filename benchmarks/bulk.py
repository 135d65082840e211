"""Bulk embedding through the queue: against fastembed's own call, a careful user's loop, and the best loop there is.

All sides embed the same new texts in each round, so that nothing is cached, and use the same cores.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

from fastembed import TextEmbedding

from benchmarks import direct
from benchmarks.arrangement import embed_pool, told
from benchmarks.corpus import queries, texts
from benchmarks.finding import Finding, Pair, in_turns
from benchmarks.site import site
from producer import Producer

_BUDGETS_TOKENS = (256, 512, 1024, 2048)
_ROUNDS = 3
_LIMIT = "the queue's own cost per row, beside a model that already has all cores"

Work = Callable[[Sequence[str]], object]


def run(*, scale: float = 1.0) -> list[Finding]:
    """Measure targets 1, 1b and 2."""
    model = direct.embedder()
    with site() as place, place.pool("embed", **embed_pool()), place.producer() as producer:
        measure = _Measure(producer, model, scale)
        return [measure.default(), measure.one_by_one(), measure.short(), measure.ceiling()]


class _Measure:
    """One pool against one loaded model; every call takes texts that neither has seen."""

    def __init__(self, producer: Producer, model: TextEmbedding, scale: float) -> None:
        self._producer = producer
        self._model = model
        self._scale = scale
        self._seed = 0
        self._through_queue(texts(self._count(32), seed=-1))
        list(model.embed(texts(self._count(4), seed=-1)))

    def default(self) -> Finding:
        pair = self._compare(texts, 64, lambda batch: list(self._model.embed(batch)), rounds=2)
        return _finding(pair, "1", "bulk embed through the queue", "TextEmbedding.embed(texts), by default", 4.0)

    def one_by_one(self) -> Finding:
        pair = self._compare(texts, 120, self._each)
        return _finding(pair, "1b", "bulk embed through the queue", "embed([text]) one by one", 1.0)

    def short(self) -> Finding:
        pair = self._compare(queries, 400, self._each)
        return _finding(pair, "1b", "the same, short texts (5 to 15 tokens)", "embed([text]) one by one", 1.5)

    def ceiling(self) -> Finding:
        trial = texts(self._count(64), seed=-2)
        rates = {budget: _rate(partial(self._sorted, budget_tokens=budget), trial) for budget in _BUDGETS_TOKENS}
        best = max(rates, key=lambda budget: rates[budget])
        pair = self._compare(texts, 240, partial(self._sorted, budget_tokens=best))
        against = f"best direct loop, sorted, {best} padded tokens a batch"
        return _finding(pair, "2", "bulk embed through the queue", against, 0.92)

    def _each(self, batch: Sequence[str]) -> object:
        return [list(self._model.embed([text])) for text in batch]

    def _sorted(self, batch: Sequence[str], budget_tokens: int) -> object:
        return direct.sorted_loop(self._model, batch, budget_tokens)

    def _through_queue(self, batch: Sequence[str]) -> object:
        return list(self._producer.iter_embed(batch))

    def _compare(
        self, make: Callable[[int, int], list[str]], count: int, other: Work, *, rounds: int = _ROUNDS
    ) -> Pair:
        each = self._count(count)
        self._seed += 1
        drawn = make(each * rounds, self._seed)  # at once: only texts of one call are all distinct
        batches = [drawn[first : first + each] for first in range(0, len(drawn), each)]
        mine, others = iter(batches), iter(batches)
        return in_turns(
            lambda: _rate(self._through_queue, next(mine)), lambda: _rate(other, next(others)), rounds=rounds
        )

    def _count(self, count: int) -> int:
        return max(2, round(count * self._scale))


def _rate(work: Work, batch: Sequence[str]) -> float:
    started = time.perf_counter()
    work(batch)
    return len(batch) / (time.perf_counter() - started)


def _finding(pair: Pair, target: str, what: str, against: str, bound: float) -> Finding:
    return Finding(
        target=target,
        what=f"{what} ({told(embed_pool())})",
        against=against,
        measured=pair.ratio,
        bound=bound,
        ours=f"{pair.ours:.1f} rows/s",
        theirs=f"{pair.theirs:.1f} rows/s",
        note=_LIMIT,
    )
