"""The sync client: performs the core's effects on Redis, and nothing else."""

import os
import secrets
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Any, Self

from producer import effects, requests, state
from producer.connection import LONGEST_S, STATE_S, Clients, first_of, redis_errors, run_script
from producer.core import DEFAULT_WINDOW, Core
from producer.counters import Counters
from producer.effects import Effect, Flow, Result, Steps
from producer.errors import HeadraceError, InvalidRequest, RedisUnavailable
from producer.exchange import ask
from producer.flight import ROWS_PER_LOOKUP, warn_of_lookup
from producer.listener import Listener, ThreadMailbox
from producer.results import EmbedResult, RerankResult, RowOutcome, Vector
from producer.settings import ProducerSettings, load
from producer.state import QueueState
from producer.wire.codec import PEEK_BYTES
from producer.wire.keys import QueueKeys, hint_channel, pools_key
from producer.wire.models import TaskName


class Producer:
    """Asks for vectors and rankings. One per process is enough: it may be used from many threads.

    It connects at the first call, starts one listening thread when a result must be waited for, and may be made
    before a fork (gunicorn, uvicorn): every child gets its own connections and thread. Close it, or use `with`.

    Every call can raise `InvalidRequest`, `RedisUnavailable`, `QueueFull`, `ResultTimeout` and `RowFailed`
    (`producer.errors`).
    """

    def __init__(self, settings: ProducerSettings) -> None:
        self.settings = settings
        self._core = Core(settings)
        self._clients = Clients(settings)
        self._closed = False
        self._start_process()
        _PRODUCERS.add(self)

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:
        """Make a producer for the Redis at `url`; keywords are the fields of `ProducerSettings`.

        Raises:
            ConfigurationError: the URL, a model's name or a value cannot work.
        """
        return cls(ProducerSettings(redis_url=url, **settings))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Make a producer from the environment variables of the settings table."""
        return cls(load(ProducerSettings, os.environ if environ is None else environ))

    def embed(self, text: str, kind: str = "query", *, timeout_s: float | None = None) -> Vector:
        """Embed one text ("query" or "passage"): float32, shape (dimension,).

        The vector is fastembed's: of unit length if the model normalises (`offline` does, multilingual-e5-large does
        not), so divide by the norms before taking dot products for cosines.
        """
        vector: Vector = self._embed([text], kind, timeout_s)[0]
        return vector

    def embed_many(self, texts: Sequence[str], kind: str = "passage", *, timeout_s: float | None = None) -> Vector:
        """Embed texts at once: float32, shape (n, dimension), in order; duplicates are computed once.

        No texts give shape (0, 0): the dimension is the pool's to tell.
        """
        return self._embed(requests.as_list(texts, "texts"), kind, timeout_s)

    def embed_result(
        self, texts: Sequence[str], kind: str = "passage", *, timeout_s: float | None = None
    ) -> EmbedResult:
        """Like `embed_many`, and say which vectors came from the cache and how long it took."""
        return self._run(self._core.embed(texts, kind, timeout_s))

    def iter_embed(
        self,
        texts: Iterable[str],
        kind: str = "passage",
        *,
        window: int = DEFAULT_WINDOW,
        timeout_s: float | None = None,
    ) -> Iterator[Vector]:
        """Embed any number of texts on the bulk lane, in order, holding `window` of them in memory.

        `timeout_s` is the longest wait without any progress (default: `bulk_timeout_s`). Each vector is float32,
        shape (dimension,).
        """
        source = requests.as_iterator(texts)
        return self._drive(Steps(self._core.iter_embed(kind, window, timeout_s)), source)

    def iter_outcomes(
        self,
        texts: Iterable[str],
        kind: str = "passage",
        *,
        window: int = DEFAULT_WINDOW,
        timeout_s: float | None = None,
    ) -> Iterator[RowOutcome]:
        """Like `iter_embed`, but in any order, and rows that fail are outcomes and not errors of the call.

        No row is taken that is `window` or more ahead of one that is not answered yet.
        """
        source = requests.as_iterator(texts)
        return self._drive(Steps(self._core.iter_outcomes(kind, window, timeout_s)), source)

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,
        *,
        fallback_scores: Sequence[float] | None = None,
        timeout_s: float | None = None,
    ) -> RerankResult:
        """Rank up to 1,000 documents by relevance to the query, best first, cut to `top_n`.

        With `fallback_scores` (one for each document, such as the vector search's), a failed or late rerank
        returns that order with `fallback_used=True` instead of raising.
        """
        return self._run(self._core.rerank(query, documents, top_n, fallback_scores, timeout_s))

    def cached(self, texts: Sequence[str], kind: str = "passage") -> list[bool]:
        """Tell which texts have their vector in the cache, without fetching or computing any."""
        return self._run(self._core.cached(texts, kind))

    def queue_state(self, task: TaskName) -> QueueState:
        """Read how the queue of the task stands: lanes, workers, counters, model card."""
        return self._read_state(self._core.queues[task])

    def queue_states(self) -> list[QueueState]:
        """Read the state of every queue that a pool has served here, and of this producer's own two."""
        return [self._read_state(queue) for queue in self._core.known_queues(self._read_pools())]

    def close(self) -> None:
        """Stop the listener, send what is counted, and close the connections. The producer cannot be used again."""
        self._closed = True
        self._listener.close()
        with suppress(HeadraceError):  # statistics are not worth an error at the end
            self._send_counters()
        self._clients.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidRequest("the producer is closed: make a new one", code="closed")

    def _start_process(self) -> None:
        """Make what belongs to one process: a child of fork has none of its parent's threads, and other hints."""
        self._counters = Counters(self._core.clock)
        channel = hint_channel(secrets.token_hex(8), self.settings.namespace)
        self._listener = Listener(self._clients.usual, channel, hasty=self._clients.within(STATE_S))
        weakref.finalize(self, self._listener.abandon)

    def _run(self, flow: Flow[Result]) -> Result:
        steps = Steps(flow)
        for _ in self._drive(steps, iter(())):
            pass
        return steps.result

    def _embed(self, texts: Sequence[str], kind: str, timeout_s: float | None) -> Vector:
        """Embed texts, and where one look shows that all are cached, without the machinery that the others need."""
        if not 0 < len(texts) <= ROWS_PER_LOOKUP:
            return self._run(self._core.embed(texts, kind, timeout_s)).embeddings
        self._check_open()
        glance = self._core.glance(texts, kind, timeout_s)
        try:
            stored = self._look_up(glance.keys, glance.timeout_s)
        except RedisUnavailable as error:
            warn_of_lookup(error)
            stored = [None] * len(texts)
        vectors = self._core.seen(glance, stored)
        if vectors is None:
            return self._run(self._core.embed_missing(glance, stored))
        self._counters.add(self._core.queues["embed"], hits=len(set(glance.keys)), misses=0)
        return vectors

    def _drive(self, steps: Steps[Any], texts: Iterator[str]) -> Iterator[Any]:
        self._check_open()
        mailbox = ThreadMailbox()
        try:
            while (effect := steps.effect) is not None:
                if isinstance(effect, effects.Emit):
                    yield effect.value
                    steps.send(None)
                elif isinstance(effect, effects.Pull):
                    steps.send(list(islice(texts, effect.count)))
                else:
                    try:
                        answer = self._perform(effect, mailbox)
                    except HeadraceError as error:
                        steps.throw(error)
                    else:
                        steps.send(answer)
        finally:
            self._listener.unwatch(mailbox)

    def _perform(self, effect: Effect, mailbox: ThreadMailbox) -> Any:
        answer: Any = None
        match effect:
            case effects.Lookup(keys, left_s):
                answer = self._look_up(keys, left_s)
            case effects.Count(queue, hits, misses):
                self._counters.add(queue, hits, misses)
            case effects.Peek(keys):
                answer = self._peek(keys)
            case effects.Enqueue(digests, make_call, left_s):
                self._listener.watch(mailbox, digests, left_s)
                with redis_errors():
                    answer = run_script(self._clients.within(left_s), make_call(self._listener.channel))
            case effects.Wait(timeout_s):
                answer = mailbox.wait(timeout_s)
            case effects.Unwatch(digests):
                self._listener.unwatch(mailbox, digests)
            case effects.Inspect(queue):
                answer = self._read_state(queue, STATE_S)
            case effects.ListPools():
                answer = self._read_pools(STATE_S)
        return answer

    def _look_up(self, keys: tuple[str, ...], left_s: float) -> Any:
        client = self._clients.within(left_s)
        with redis_errors():
            due = self._counters.take_due()
            if not due:
                return ask(client, "MGET", *keys)
            with client.pipeline(transaction=False) as pipeline:
                pipeline.mget(keys)
                self._counters.write(pipeline, due)
                return first_of(pipeline.execute(raise_on_error=False))

    def _peek(self, keys: tuple[str, ...]) -> Any:
        with redis_errors(), self._clients.usual.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.getrange(key, 0, PEEK_BYTES - 1)
            return pipeline.execute()

    def _read_state(self, queue: QueueKeys, left_s: float = LONGEST_S) -> QueueState:
        with redis_errors(), self._clients.within(left_s).pipeline(transaction=False) as pipeline:
            state.ask(pipeline, queue)
            return state.parse(queue, pipeline.execute(raise_on_error=False))

    def _read_pools(self, left_s: float = LONGEST_S) -> Any:
        with redis_errors():
            return self._clients.within(left_s).hgetall(pools_key(self.settings.namespace))

    def _send_counters(self) -> None:
        due = self._counters.take_due(force=True)
        if due:
            with redis_errors(), self._clients.within(STATE_S).pipeline(transaction=False) as pipeline:
                self._counters.write(pipeline, due)
                pipeline.execute()


_PRODUCERS: weakref.WeakSet[Producer] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for producer in list(_PRODUCERS):
        producer._start_process()


os.register_at_fork(after_in_child=_after_fork_in_child)
