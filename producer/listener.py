"""One background thread that hears which rows are ready, and the mailbox on which a call waits for it."""

import logging
import threading
from collections.abc import Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

import redis
from redis.exceptions import RedisError

from producer.errors import redacted
from producer.hints import Switchboard

logger = logging.getLogger("headrace.producer")

_POLL_S = 0.7
"""Not a whole second, at whose end whoever asks once a second would find the thread at its housekeeping."""

_BACKOFF_S = 0.5
_STARTUP_S = 2.0


class ThreadMailbox:
    """The hints for one call. Only that call's thread waits on it."""

    def __init__(self) -> None:
        self._hinted: SimpleQueue[bytes] = SimpleQueue()

    def deliver(self, digest: bytes) -> None:
        self._hinted.put(digest)

    def wait(self, timeout_s: float) -> set[bytes]:
        """Return the digests hinted since the last call, waiting for the first at most `timeout_s`."""
        hinted: set[bytes] = set()
        with suppress(Empty):
            hinted.add(self._hinted.get(timeout=timeout_s))
            while True:
                hinted.add(self._hinted.get_nowait())
        return hinted


class Listener:
    """Subscribes to this process's hint channel when first needed. Safe to use from many threads."""

    def __init__(self, client: redis.Redis, channel: str, *, hasty: redis.Redis | None = None) -> None:
        self.channel = channel
        self._client = client
        self._hasty = hasty or client
        """Used at the end, which must not take long even if Redis does not answer."""
        self._switchboard = Switchboard()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._settled = threading.Event()
        self._stopping = threading.Event()

    def watch(self, mailbox: ThreadMailbox, digests: Iterable[bytes], left_s: float) -> None:
        """Deliver hints for these rows to the mailbox from now on; starts the thread when there is none."""
        self._switchboard.watch(mailbox, digests)
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._listen, name="headrace-listener", daemon=True)
                self._thread.start()
                # A job sent before the subscription stands would lose its hint. Without, re-checks still work.
                self._settled.wait(min(_STARTUP_S, left_s))

    def unwatch(self, mailbox: ThreadMailbox, digests: Iterable[bytes] | None = None) -> None:
        """End the delivery of hints for these rows, or of all, to a mailbox."""
        self._switchboard.unwatch(mailbox, digests)

    def abandon(self) -> None:
        """Let the thread end by itself, soon: its producer is gone without being closed."""
        self._stopping.set()

    def close(self) -> None:
        """Stop the thread and wait for its end."""
        self._stopping.set()
        if self._thread is not None:
            with suppress(RedisError, OSError):
                self._hasty.publish(self.channel, b"")  # wakes the thread now instead of at its next poll
            self._thread.join(timeout=2 * _POLL_S)

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                self._hear()
            except (RedisError, OSError, ValueError) as error:
                self._settled.set()  # nobody need wait for a subscription that cannot come
                if not self._stopping.is_set():
                    logger.warning("hints are interrupted, results are looked for at intervals: %s", redacted(error))
                    self._stopping.wait(_BACKOFF_S)

    def _hear(self) -> None:
        with self._client.pubsub() as pubsub:
            pubsub.subscribe(self.channel)
            while not self._stopping.is_set():
                kind, data = _next(pubsub)
                if kind == b"message":
                    self._switchboard.deliver(data)
                elif kind == b"subscribe":
                    self._settled.set()


def _next(pubsub: Any) -> tuple[bytes, bytes]:
    """Read one message within the time of a poll: its kind, and what it says; two times nothing if there is none."""
    try:
        # Straight from the connection: `get_message` would double the time between a hint and who waits for it.
        message = pubsub.connection.read_response(disconnect_on_error=False, push_request=True, timeout=_POLL_S)
        return (message[0], message[-1]) if isinstance(message, list) else (b"", b"")
    except (redis.TimeoutError, redis.ConnectionError):
        # It sends what keeps the connection healthy, and makes one that broke anew, with its subscription.
        said = pubsub.get_message(timeout=0)
        return (said["type"].encode(), said["data"]) if said else (b"", b"")
