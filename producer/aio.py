"""The asyncio client: the same names as the sync one, awaited; performs the core's effects, and nothing else."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Any, Self

from producer import effects, requests, state
from producer.aio_listener import AsyncListener, TaskMailbox
from producer.connection import SHORTEST_S, STATE_S, connect_async, first_of, redis_errors, run_script_async
from producer.core import DEFAULT_WINDOW, Core
from producer.counters import Counters
from producer.effects import Effect, Flow, Result, Steps
from producer.errors import HeadraceError, InvalidRequest
from producer.results import EmbedResult, RerankResult, RowOutcome, Vector
from producer.settings import ProducerSettings, load
from producer.state import QueueState
from producer.wire.codec import PEEK_BYTES
from producer.wire.keys import QueueKeys, hint_channel, pools_key
from producer.wire.models import TaskName


class AsyncProducer:
    """`Producer` for one event loop: the same calls, results and errors, awaited. Close it, or use `async with`."""

    def __init__(self, settings: ProducerSettings) -> None:
        self.settings = settings
        self._core = Core(settings)
        self._client = connect_async(settings)
        self._closed = False
        self._counters = Counters(self._core.clock)
        self._listener = AsyncListener(self._client, hint_channel(secrets.token_hex(8), settings.namespace))

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

    async def embed(self, text: str, kind: str = "query", *, timeout_s: float | None = None) -> Vector:
        """Like `Producer.embed`."""
        return (await self._run(self._core.embed([text], kind, timeout_s))).vector(0)

    async def embed_many(
        self, texts: Sequence[str], kind: str = "passage", *, timeout_s: float | None = None
    ) -> Vector:
        """Like `Producer.embed_many`."""
        return (await self._run(self._core.embed(texts, kind, timeout_s))).embeddings

    async def embed_result(
        self, texts: Sequence[str], kind: str = "passage", *, timeout_s: float | None = None
    ) -> EmbedResult:
        """Like `Producer.embed_result`."""
        return await self._run(self._core.embed(texts, kind, timeout_s))

    def iter_embed(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        kind: str = "passage",
        *,
        window: int = DEFAULT_WINDOW,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Vector]:
        """Like `Producer.iter_embed`; the texts may also come from an async iterable."""
        source = aiter(texts) if isinstance(texts, AsyncIterable) else requests.as_iterator(texts)
        return self._drive(Steps(self._core.iter_embed(kind, window, timeout_s)), source)

    def iter_outcomes(
        self,
        texts: Iterable[str] | AsyncIterable[str],
        kind: str = "passage",
        *,
        window: int = DEFAULT_WINDOW,
        timeout_s: float | None = None,
    ) -> AsyncIterator[RowOutcome]:
        """Like `Producer.iter_outcomes`; the texts may also come from an async iterable."""
        source = aiter(texts) if isinstance(texts, AsyncIterable) else requests.as_iterator(texts)
        return self._drive(Steps(self._core.iter_outcomes(kind, window, timeout_s)), source)

    async def rerank(
        self,
        query: str,
        documents: Sequence[str],
        top_n: int | None = None,
        *,
        fallback_scores: Sequence[float] | None = None,
        timeout_s: float | None = None,
    ) -> RerankResult:
        """Like `Producer.rerank`."""
        return await self._run(self._core.rerank(query, documents, top_n, fallback_scores, timeout_s))

    async def cached(self, texts: Sequence[str], kind: str = "passage") -> list[bool]:
        """Like `Producer.cached`."""
        return await self._run(self._core.cached(texts, kind))

    async def queue_state(self, task: TaskName) -> QueueState:
        """Like `Producer.queue_state`."""
        return await self._read_state(self._core.queues[task])

    async def queue_states(self) -> list[QueueState]:
        """Like `Producer.queue_states`."""
        return [await self._read_state(queue) for queue in self._core.known_queues(await self._read_pools())]

    async def close(self) -> None:
        """Like `Producer.close`."""
        self._closed = True
        await self._listener.close()
        with suppress(HeadraceError):  # statistics are not worth an error at the end
            await self._within(STATE_S, self._send_counters())
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, flow: Flow[Result]) -> Result:
        steps = Steps(flow)
        async for _ in self._drive(steps, iter(())):
            pass
        return steps.result

    async def _drive(self, steps: Steps[Any], texts: Iterator[str] | AsyncIterator[str]) -> AsyncIterator[Any]:
        if self._closed:
            raise InvalidRequest("the producer is closed: make a new one", code="closed")
        mailbox = TaskMailbox()
        task = asyncio.current_task()
        cancels = task.cancelling() if task else 0
        try:
            while (effect := steps.effect) is not None:
                if isinstance(effect, effects.Emit):
                    yield effect.value
                    steps.send(None)
                elif isinstance(effect, effects.Pull):
                    steps.send(await _pull(texts, effect.count))
                else:
                    try:
                        answer = await self._perform(effect, mailbox)
                    except HeadraceError as error:
                        steps.throw(error)
                    else:
                        steps.send(answer)
                # Before Python 3.12 `asyncio.wait_for`, which redis-py uses, may lose a cancellation.
                if task and task.cancelling() > cancels:
                    raise asyncio.CancelledError
        finally:
            self._listener.unwatch(mailbox)

    async def _perform(self, effect: Effect, mailbox: TaskMailbox) -> Any:
        answer: Any = None
        match effect:
            case effects.Lookup(keys, left_s):
                answer = await self._within(left_s, self._look_up(keys))
            case effects.Count(queue, hits, misses):
                self._counters.add(queue, hits, misses)
            case effects.Peek(keys):
                answer = await self._peek(keys)
            case effects.Enqueue(digests, make_call, left_s):
                await self._listener.watch(mailbox, digests, left_s)
                answer = await self._within(left_s, run_script_async(self._client, make_call(self._listener.channel)))
            case effects.Wait(timeout_s):
                answer = await mailbox.wait(timeout_s)
            case effects.Unwatch(digests):
                self._listener.unwatch(mailbox, digests)
            case effects.Inspect(queue):
                answer = await self._within(STATE_S, self._read_state(queue))
            case effects.ListPools():
                answer = await self._within(STATE_S, self._read_pools())
        return answer

    async def _within(self, left_s: float, answer: Awaitable[Any]) -> Any:
        """Give up on Redis within so many seconds (or in a quarter of one, if that is more)."""
        with redis_errors():
            # Not by asyncio.timeout: before Python 3.12 redis-py may lose the cancellation, and wait on.
            asking = asyncio.ensure_future(answer)
            try:
                await asyncio.wait({asking}, timeout=max(left_s, SHORTEST_S))
            finally:
                if not asking.done():
                    asking.cancel()
            if not asking.done() or asking.cancelled():
                asking.add_done_callback(_forget)
                raise TimeoutError
            return asking.result()

    async def _look_up(self, keys: tuple[str, ...]) -> Any:
        due = self._counters.take_due()
        if not due:
            return await self._client.mget(keys)
        async with self._client.pipeline(transaction=False) as pipeline:
            pipeline.mget(keys)
            self._counters.write(pipeline, due)
            return first_of(await pipeline.execute(raise_on_error=False))

    async def _peek(self, keys: tuple[str, ...]) -> Any:
        with redis_errors():
            async with self._client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.getrange(key, 0, PEEK_BYTES - 1)
                return await pipeline.execute()

    async def _read_state(self, queue: QueueKeys) -> QueueState:
        with redis_errors():
            async with self._client.pipeline(transaction=False) as pipeline:
                state.ask(pipeline, queue)
                return state.parse(queue, await pipeline.execute(raise_on_error=False))

    async def _read_pools(self) -> Any:
        with redis_errors():
            return await self._client.hgetall(pools_key(self.settings.namespace))

    async def _send_counters(self) -> None:
        due = self._counters.take_due(force=True)
        if due:
            async with self._client.pipeline(transaction=False) as pipeline:
                self._counters.write(pipeline, due)
                await pipeline.execute()


def _forget(asking: asyncio.Future[Any]) -> None:
    """Take the error of an answer that nobody waits for any more."""
    if not asking.cancelled():
        asking.exception()


async def _pull(texts: Iterator[str] | AsyncIterator[str], count: int) -> list[str]:
    if isinstance(texts, Iterator):
        return list(islice(texts, count))
    pulled: list[str] = []
    while len(pulled) < count:
        try:
            pulled.append(await anext(texts))
        except StopAsyncIteration:
            break
    return pulled
