"""The thread beside the model: heartbeats, leases of the jobs in hand, counters and the model card's life."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from producer.errors import MalformedMessage, redacted
from producer.wire.codec import decode_message, encode_message
from producer.wire.keys import Lane, QueueKeys, pools_key
from producer.wire.messages import Heartbeat, ModelCard
from workers.ledger import Ledger
from workers.progress import Progress
from workers.streams import Streams

logger = logging.getLogger("headrace.worker")

BEAT_S = 2.0
_FORGET_MS = 3_600_000
_SPOILT = ("WRONGTYPE", "hash value is not an integer")
"""Errors of a counter that somebody has filled with something else."""

_WORKERS_TTL_S = 7200


class Pulse:
    """Beats until closed. It has a connection of its own, since the engine's may be blocked."""

    def __init__(
        self,
        *,
        client: redis.Redis,
        queue: QueueKeys,
        name: str,
        model: str,
        ledger: Ledger,
        progress: Progress,
        card_ttl_s: int,
        lease_s: float,
        batch_limit_s: float,
        parent_alive: Callable[[], bool],
        leave: Callable[[], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._streams = Streams(client, queue, name)
        self._client = client
        self._queue = queue
        self._name = name
        self._model = model
        self._ledger = ledger
        self._progress = progress
        self._card_ttl_s = card_ttl_s
        self._lease_s = lease_s
        self._batch_limit_s = batch_limit_s
        self._interval_s = min(BEAT_S, lease_s / 4)
        self._renewed_at_s = time.monotonic()
        self._parent_alive = parent_alive
        self._leave = leave
        self._is_stopping = is_stopping
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_closed, name="headrace-pulse", daemon=True)
        self._started_at_ms = 0
        self._rate = 0.0
        self._rate_mark = (time.monotonic(), 0)
        self.card: ModelCard | None = None
        self.state = "loading"

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def close(self) -> None:
        """Send what is left to send, take the heartbeat away and end."""
        self._closing.set()
        self._thread.join(timeout=5 * BEAT_S)
        try:
            self._send_counters()
            self._client.hdel(self._queue.workers, self._name)
        except (RedisError, OSError):
            logger.info("Redis is away at the end: the heartbeat will go stale by itself")

    def _beat_until_closed(self) -> None:
        while not self._closing.is_set():
            if not self._parent_alive():
                if not self._is_stopping():
                    logger.error("the pool's parent process is gone: leaving")
                self._leave()
            for part in (
                self._renew_leases,
                self._send_heartbeat,
                self._send_counters,
                self._keep_card,
                self._keep_scripts,
            ):
                try:
                    part()
                except (RedisError, OSError, MalformedMessage) as error:
                    logger.debug("a part of the heartbeat failed: %s", redacted(error))
                except Exception as error:  # noqa: BLE001 - without this thread nobody would renew the leases
                    logger.error("a part of the heartbeat failed: %s", type(error).__name__)
            self._closing.wait(self._interval_s)

    def _renew_leases(self) -> None:
        """Show that the entries in hand are worked on, unless the model hangs.

        If this process stood still for longer than the lease, others may have taken them over: they are not taken back,
        the engine looks at what is left to it.
        """
        now_s = time.monotonic()
        if now_s - self._renewed_at_s > self._lease_s:
            self._ledger.forfeited = True
        elif self._progress.vitals.working_s() < self._batch_limit_s:
            for lane in Lane:
                if entry_ids := self._ledger.entry_ids(lane):
                    self._streams.renew(lane, entry_ids)
        self._renewed_at_s = now_s

    def _keep_card(self) -> None:
        """Keep the model card alive, and this pool in the registry; leave if other weights have taken the tag."""
        if self.card is None:
            return
        self._client.set(self._queue.card, encode_message(self.card), ex=self._card_ttl_s, nx=True)
        self._client.expire(self._queue.card, self._card_ttl_s)
        self._client.hset(pools_key(self._queue.namespace), f"{self._queue.task}:{self._queue.tag}", self._model)
        published: Any = self._client.get(self._queue.card)
        if published and decode_message(ModelCard, published).weights_sha256 != self.card.weights_sha256:
            logger.error("other weights have taken the tag %s: leaving", self._queue.tag)
            self._leave()

    def _keep_scripts(self) -> None:
        """A Redis that was restarted has forgotten the scripts, and a producer may lack the right to load them."""
        self._streams.load_scripts()

    def _send_heartbeat(self) -> None:
        now_ms = self._streams.now_ms()
        self._started_at_ms = self._started_at_ms or now_ms
        if self._is_stopping():
            self.state = "stopping"
        beat = Heartbeat(
            model=self._model,
            model_loaded=self.card is not None,
            dimension=self.card.dimension if self.card else 0,
            host=socket.gethostname(),
            pid=os.getpid(),
            state=self.state,
            in_flight_rows=self._ledger.open_rows,
            rows_done=self._progress.rows_done,
            rows_per_s=self._measure_rate(),
            started_at_ms=self._started_at_ms,
            beat_at_ms=now_ms,
            progressed_at_ms=now_ms - int((time.monotonic() - self._progress.ticked_at_s) * 1000),
            batch_limit_ms=int(self._batch_limit_s * 1000),
        )
        put_heartbeat(self._client, self._queue, self._name, encode_message(beat))
        self._client.expire(self._queue.workers, _WORKERS_TTL_S)

    def _measure_rate(self) -> float:
        """Rows per second, smoothed over about ten beats."""
        then_s, then_rows = self._rate_mark
        now_s, rows = time.monotonic(), self._progress.rows_done
        if now_s - then_s >= BEAT_S / 2:
            self._rate += 0.3 * ((rows - then_rows) / (now_s - then_s) - self._rate)
            self._rate_mark = (now_s, rows)
        return round(self._rate, 3)

    def _send_counters(self) -> None:
        counts = self._progress.unsent()
        if not counts:
            return
        with self._client.pipeline(transaction=False) as pipeline:
            for name, count in counts.items():
                pipeline.hincrby(self._queue.stats, name, count)
            replies = pipeline.execute(raise_on_error=False)
        # One that somebody has spoilt is given up, and keeps no other from being sent; a refusal for now is sent later.
        self._progress.mark_sent(
            {
                name: count
                for (name, count), reply in zip(counts.items(), replies, strict=True)
                if not isinstance(reply, Exception) or str(reply).startswith(_SPOILT)
            }
        )


def put_heartbeat(client: redis.Redis, queue: QueueKeys, name: str, beat: bytes) -> None:
    """Write a heartbeat; where no hash is, there is nothing worth keeping."""
    try:
        client.hset(queue.workers, name, beat)
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        client.delete(queue.workers)
        client.hset(queue.workers, name, beat)


def forget_old_workers(streams: Streams) -> None:
    """Remove heartbeats and consumers of workers that went without a word long ago, and hold nothing."""
    client, queue, now_ms = streams.client, streams.queue, streams.now_ms()
    beats: dict[bytes, bytes] = client.hgetall(queue.workers)  # type: ignore[assignment]
    for name, data in beats.items():
        try:
            silent_ms = now_ms - decode_message(Heartbeat, data).beat_at_ms
        except MalformedMessage:
            continue  # of another release: not ours to remove
        if silent_ms > _FORGET_MS:
            client.hdel(queue.workers, name)
    streams.forget_consumers(_FORGET_MS)
