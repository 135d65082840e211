"""The sans-IO core that both clients share: from checked arguments to results, as flows of effects."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from producer import requests
from producer.effects import Emit, Flow, Inspect, ListPools, Lookup, Peek, Pull
from producer.errors import (
    HeadraceError,
    MalformedMessage,
    ModelNotServed,
    RedisUnavailable,
    ResultTimeout,
    RowFailed,
)
from producer.flight import ROWS_PER_LOOKUP, Flight, Stored
from producer.ordering import InOrder, Span
from producer.results import EmbedResult, RankedDocument, RerankResult, RowOutcome, Vector
from producer.settings import ProducerSettings
from producer.wire.codec import begins_result, decode_vector, decode_vectors, is_result, read_vectors
from producer.wire.keys import Kind, Lane, QueueKeys, digest
from producer.wire.messages import EmbeddingReply, FailureReply, Reply, Row, ScoreReply
from producer.wire.models import TASKS, TaskName, resolve
from producer.wire.scripts import LaneLimit
from producer.wire.signing import Seal

DEFAULT_WINDOW = 512
"""Rows that `iter_embed` keeps in flight."""


@dataclass(slots=True, kw_only=True)
class Glance:
    """Texts on their short way: the keys to look at, before any of a call's machinery is set up."""

    kind: Kind
    texts: Sequence[str]
    keys: tuple[str, ...]
    started: float
    timeout_s: float


class Core:
    """Both clients' logic. Each flow is a generator of effects that a client performs."""

    def __init__(self, settings: ProducerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self.clock = clock
        self.seal = Seal(settings.cache_key)
        self._limit = LaneLimit(rows=settings.lane_limit, size_bytes=settings.lane_limit_bytes)
        self.queues: dict[TaskName, QueueKeys] = {
            "embed": QueueKeys.of(resolve("embed", settings.embed_model), settings.namespace),
            "rerank": QueueKeys.of(resolve("rerank", settings.rerank_model), settings.namespace),
        }

    def embed(self, texts: Sequence[str], kind: str, timeout_s: float | None) -> Flow[EmbedResult]:
        """Embed texts on the interactive lane; order kept, duplicates sent once."""
        started = self.clock()
        timeout_s = self._timeout(timeout_s)
        rows = requests.text_rows(texts, kind, self.settings.max_text_bytes)
        flight = self._flight("embed", Lane.INTERACTIVE)
        yield from self._collect(flight, rows, timeout_s)
        replies = [flight.replies[row.digest] for row in rows]
        return EmbedResult(
            embeddings=_vectors(replies),
            cached=tuple([row.digest in flight.cached for row in rows]),
            model=self.settings.embed_model,
            latency_ms=(self.clock() - started) * 1000,
        )

    def glance(self, texts: Sequence[str], kind: str, timeout_s: float | None) -> Glance:
        """Check texts for `embed`, and say where their results are if they are cached: most often they are."""
        started = self.clock()
        timeout_s = self._timeout(timeout_s)
        checked = requests.text_kind(kind)
        cleaned = requests.clean_texts(texts, self.settings.max_text_bytes)
        reply = self.queues["embed"].reply
        keys = tuple([reply(digest(checked, text)) for text in cleaned])
        return Glance(kind=checked, texts=cleaned, keys=keys, started=started, timeout_s=timeout_s)

    def seen(self, glance: Glance, stored: Stored) -> Vector | None:
        """Read the vectors if all are cached: shape (n, dimension). Whatever else is stored takes the long way."""
        if self.seal.signs:
            stored = [self.seal.open(key, value) for key, value in zip(glance.keys, stored, strict=True)]
        return read_vectors(stored)

    def embed_missing(self, glance: Glance, stored: Stored) -> Flow[Vector]:
        """Embed texts of which some are missing in what is stored, on the interactive lane: shape (n, dimension)."""
        rows = [Row(kind=glance.kind, text=text) for text in glance.texts]
        flight = self._flight("embed", Lane.INTERACTIVE)
        yield from self._collect(flight, rows, glance.timeout_s, started=glance.started, stored=stored)
        return _vectors([flight.replies[row.digest] for row in rows])

    def cached(self, texts: Sequence[str], kind: str) -> Flow[list[bool]]:
        """Tell which texts have their vector in the cache, without fetching or computing any."""
        rows = requests.text_rows(texts, kind, self.settings.max_text_bytes)
        found: list[bool] = []
        for first in range(0, len(rows), ROWS_PER_LOOKUP):
            keys = tuple(self.queues["embed"].reply(row.digest) for row in rows[first : first + ROWS_PER_LOOKUP])
            if self.seal.signs:  # what does not verify is not there
                values = yield Lookup(keys, self.settings.timeout_s)
                found += [is_result(self.seal.open(key, value)) for key, value in zip(keys, values, strict=True)]
            else:
                found += [begins_result(start) for start in (yield Peek(keys))]
        return found

    def iter_embed(self, kind: str, window: int, timeout_s: float | None) -> Flow[None]:
        """Embed any number of texts on the bulk lane, `window` rows in flight; emits vectors in order."""
        yield from self._flood(kind, window, timeout_s, InOrder().take)

    def iter_outcomes(self, kind: str, window: int, timeout_s: float | None) -> Flow[None]:
        """The same, but emits a `RowOutcome` for each row as it is answered, and goes on after one that failed."""
        yield from self._flood(kind, window, timeout_s, lambda outcome: (outcome,))

    def _flood(
        self, kind: str, window: int, timeout_s: float | None, emitted: Callable[[RowOutcome], Iterable[object]]
    ) -> Flow[None]:
        """Embed texts on the bulk lane, none of them `window` rows or more ahead of one that is not answered."""
        timeout_s = self.settings.bulk_timeout_s if timeout_s is None else requests.check_timeout(timeout_s)
        checked_kind = requests.text_kind(kind)
        requests.check_window(window)
        flight = self._flight("embed", Lane.BULK)
        waiting: dict[bytes, list[int]] = {}
        span, exhausted = Span(), False
        shape: tuple[int, ...] | None = None
        while waiting or not exhausted:
            # Refill in halves: few large look-ups cost less than one look-up for each row that came back.
            if not exhausted and span.rows <= window // 2:
                room = window - span.rows
                texts = yield Pull(room)
                exhausted = len(texts) < room
                rows = requests.text_rows(texts, checked_kind, self.settings.max_text_bytes, first=span.end)
                for number, row in enumerate(rows, span.end):
                    waiting.setdefault(row.digest, []).append(number)
                span.extend(len(rows))
                flight.progressed_at = self.clock()  # nor is the time that a slow source takes
                yield from flight.start(rows, self.clock() + timeout_s)
            for key in sorted(waiting.keys() & flight.replies.keys(), key=lambda key: waiting[key][0]):
                reply, cached = flight.replies[key], key in flight.cached
                flight.forget(key)
                for number in waiting.pop(key):
                    outcome = _outcome(number, reply, cached=cached)
                    shape = _same_shape(outcome.vector, shape)
                    for value in emitted(outcome):
                        yield Emit(value)
                        flight.progressed_at = self.clock()  # the time that a slow consumer takes is not the queue's
                    span.answer(number)
                if not exhausted and span.rows <= window // 2:
                    break  # refill first: workers shall not idle while a slow consumer takes what is answered
            if waiting and (exhausted or span.rows > window // 2):
                yield from self._await_more(flight, flight.progressed_at + timeout_s, timeout_s)

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None,
        fallback_scores: Sequence[float] | None,
        timeout_s: float | None,
    ) -> Flow[RerankResult]:
        """Score the pairs that are not cached, sort, cut; with `fallback_scores`, a failure keeps that order."""
        started = self.clock()
        timeout_s = self._timeout(timeout_s)
        requests.check_top_n(top_n)
        documents = requests.as_list(documents, "documents")
        fallback = requests.check_fallback(fallback_scores, documents)
        rows = requests.pair_rows(query, documents, self.settings.max_text_bytes)
        flight = self._flight("rerank", Lane.INTERACTIVE)
        reason = None
        try:
            yield from self._collect(flight, rows, timeout_s)
            scores = [_score(flight.replies[row.digest], f"document {n}") for n, row in enumerate(rows)]
        except HeadraceError as error:
            if fallback is None:
                raise
            reason = f"{error.code}: {error}"
            scores = fallback
        order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))
        return RerankResult(
            results=tuple(
                RankedDocument(index=index, score=scores[index], document=documents[index]) for index in order[:top_n]
            ),
            model=self.settings.rerank_model,
            latency_ms=(self.clock() - started) * 1000,
            fallback_used=reason is not None,
            fallback_reason=reason,
            cached_pairs=len(flight.cached),
        )

    def known_queues(self, pools: Mapping[bytes, bytes]) -> list[QueueKeys]:
        """The queues of the registered pools ("task:tag" to model) and this producer's own, each once, in order."""
        names = {tuple(name.decode(errors="replace").partition(":")[::2]) for name in pools}
        names |= {(queue.task, queue.tag) for queue in self.queues.values()}
        return [
            QueueKeys(task=task, tag=tag, namespace=self.settings.namespace)
            for task in TASKS
            for name_task, tag in sorted(names)
            if name_task == task
        ]

    def _timeout(self, timeout_s: float | None) -> float:
        return self.settings.timeout_s if timeout_s is None else requests.check_timeout(timeout_s)

    def _flight(self, task: TaskName, lane: Lane) -> Flight:
        return Flight(queue=self.queues[task], lane=lane, limit=self._limit, seal=self.seal, clock=self.clock)

    def _collect(
        self,
        flight: Flight,
        rows: Sequence[Row],
        timeout_s: float,
        *,
        started: float | None = None,
        stored: Stored | None = None,
    ) -> Flow[None]:
        deadline = (self.clock() if started is None else started) + timeout_s
        yield from flight.start(rows, deadline, stored)
        while flight.pending:
            yield from self._await_more(flight, deadline, timeout_s)

    def _await_more(self, flight: Flight, deadline: float, timeout_s: float) -> Flow[None]:
        if self.clock() < deadline:
            yield from flight.advance(deadline)
            return
        yield from flight.look_again(deadline)
        if flight.pending:
            raise (yield from self._late(flight, timeout_s))

    def _late(self, flight: Flight, timeout_s: float) -> Flow[HeadraceError]:
        """Build the error of a call whose time is over, with the state of its queue."""
        lead = f"no result within {timeout_s:g} s for {len(flight.pending)} rows"
        try:
            state = yield Inspect(flight.queue)
            pools = yield ListPools()
        except RedisUnavailable as error:
            return ResultTimeout(f"{lead}; the queue cannot be inspected: {error}")
        task = flight.queue.task
        model = self.settings.embed_model if task == "embed" else self.settings.rerank_model
        text = f"{lead}: {state.describe(flight.lane)}"
        if stored := flight.unverified & flight.pending.keys():
            text += f"; {len(stored)} results cannot be read or do not verify: is HEADRACE_CACHE_KEY the pool's?"
        served = [
            name.decode(errors="replace") for key, name in sorted(pools.items()) if key.startswith(f"{task}:".encode())
        ]
        if served and not state.card and not state.workers:
            return ModelNotServed(f"{text}; {model!r} is not served, pools have run for: {', '.join(served)}")
        if not any(worker.healthy for worker in state.workers):
            text += f"; start a pool with: headrace worker {task} --model {model}"
        return ResultTimeout(text)


def _outcome(index: int, reply: Reply, *, cached: bool) -> RowOutcome:
    if isinstance(reply, EmbeddingReply):  # copied: a view of the reply could not be written to
        return RowOutcome(index=index, vector=decode_vector(reply).copy(), error=None, cached=cached)
    return RowOutcome(index=index, vector=None, error=_failure(reply, f"text {index}"), cached=False)


def _vectors(replies: Sequence[Reply]) -> Vector:
    """All vectors as one array, shape (n, dimension); the first row that failed is the call's error."""
    vectors = [reply for reply in replies if isinstance(reply, EmbeddingReply)]
    if len(vectors) < len(replies):
        number, failed = next((n, one) for n, one in enumerate(replies) if not isinstance(one, EmbeddingReply))
        raise _failure(failed, f"text {number}")
    return decode_vectors(vectors)


def _score(reply: Reply, what: str) -> float:
    if isinstance(reply, ScoreReply):
        return reply.score
    raise _failure(reply, what)


def _failure(reply: Reply, what: str) -> HeadraceError:
    if isinstance(reply, FailureReply):
        return RowFailed(f"a worker could not compute {what}: {reply.message}", code=reply.code)
    return MalformedMessage(f"the reply key of {what} holds a result of another task")


def _same_shape(vector: Vector | None, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    if vector is None:
        return shape
    if shape not in (None, vector.shape):
        raise MalformedMessage("replies of different dimensions under one tag")
    return tuple(vector.shape)
