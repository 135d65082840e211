"""One background task that hears which rows are ready, and the mailbox on which a call waits for it."""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress

import redis.asyncio
from redis.exceptions import RedisError

from producer.errors import redacted
from producer.hints import Switchboard

logger = logging.getLogger("headrace.producer")

_POLL_S = 30.0
_BACKOFF_S = 0.5
_STARTUP_S = 2.0


class TaskMailbox:
    """The hints for one call. Only that call's task waits on it."""

    def __init__(self) -> None:
        self._hinted: set[bytes] = set()
        self._arrived = asyncio.Event()

    def deliver(self, digest: bytes) -> None:
        self._hinted.add(digest)
        self._arrived.set()

    async def wait(self, timeout_s: float) -> set[bytes]:
        """Return the digests hinted since the last call, waiting for the first at most `timeout_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()
        self._arrived.clear()
        hinted, self._hinted = self._hinted, set()
        return hinted


class AsyncListener:
    """Subscribes to this client's hint channel when first needed; lives in the event loop that first used it."""

    def __init__(self, client: redis.asyncio.Redis, channel: str) -> None:
        self.channel = channel
        self._client = client
        self._switchboard = Switchboard()
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()

    async def watch(self, mailbox: TaskMailbox, digests: Iterable[bytes], left_s: float) -> None:
        """Deliver hints for these rows to the mailbox from now on; starts the task when there is none."""
        self._switchboard.watch(mailbox, digests)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._listen(), name="headrace-listener")
            # A job sent before the subscription stands would lose its hint. Without, re-checks still work.
            with suppress(TimeoutError):
                async with asyncio.timeout(min(_STARTUP_S, left_s)):
                    await self._settled.wait()

    def unwatch(self, mailbox: TaskMailbox, digests: Iterable[bytes] | None = None) -> None:
        """End the delivery of hints for these rows, or of all, to a mailbox."""
        self._switchboard.unwatch(mailbox, digests)

    async def close(self) -> None:
        """Stop the task and wait for its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _listen(self) -> None:
        while True:
            try:
                await self._hear()
            except (RedisError, OSError) as error:
                self._settled.set()  # nobody need wait for a subscription that cannot come
                logger.warning("hints are interrupted, results are looked for at intervals: %s", redacted(error))
                await asyncio.sleep(_BACKOFF_S)

    async def _hear(self) -> None:
        async with self._client.pubsub() as pubsub:
            await pubsub.subscribe(self.channel)
            while True:
                message = await pubsub.get_message(timeout=_POLL_S)
                if message is not None and message["type"] == "subscribe":
                    self._settled.set()
                elif message is not None and message["type"] == "message":
                    self._switchboard.deliver(message["data"])
