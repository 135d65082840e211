"""The worker's side of the streams: read, take over, renew, write replies, acknowledge. No policy."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import redis
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from producer.connection import run_script
from producer.exchange import ask, ask_all, raise_first
from producer.wire import scripts
from producer.wire.keys import GROUP, Lane, QueueKeys
from producer.wire.letters import encode_letter
from producer.wire.messages import EntrySize
from producer.wire.scripts import ScriptCall
from producer.wire.signing import Seal
from workers.entries import Ending, Entry

logger = logging.getLogger("headrace.worker")

DEAD_LETTERS = 10_000
"""Dead letters kept, about; older ones are trimmed."""

DEAD_LETTERS_BYTES = 128 * 1024 * 1024
"""Memory that dead letters take, about; beyond, the older half is trimmed. They are never evicted."""

_SPOILT = ("WRONGTYPE", "The ID specified in XADD")
"""Errors of a key that somebody has filled with something else; no other try would help."""

_HANDED_BACK_MS = 24 * 3600 * 1000
_CLOCK_S = 30.0


class Streams:
    """One consumer on the lanes of one queue, for any thread. Every method is a few round trips at most and may raise
    RedisError."""

    def __init__(self, client: redis.Redis, queue: QueueKeys, consumer: str, seal: Seal | None = None) -> None:
        self.client = client
        self.queue = queue
        self.consumer = consumer
        self._seal = seal or Seal()
        self._clock_offset_ms = 0.0
        self._clock_read_at = float("-inf")

    def prepare(self) -> None:
        """Create the groups where they are missing, from the stream's start: queued jobs count. Load the scripts.

        A Redis that is full refuses to create even what is there; if it is not, reading will say so.
        """
        for lane in Lane:
            try:
                self.client.xgroup_create(self.queue.lane(lane), GROUP, id="0", mkstream=True)
            except OutOfMemoryError:
                continue
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
        self.load_scripts()

    def load_scripts(self) -> None:
        """Load what is missing of the scripts: after a restart or a failover producers may not be allowed to."""
        missing: Any = self.client.script_exists(*(script.sha for script in scripts.ALL))
        for script, there in zip(scripts.ALL, missing, strict=True):
            if not there:
                self.client.script_load(script.source.decode())

    def read_own(self, most_rows: int) -> list[Entry]:
        """Read what this consumer was given and has not acknowledged, about so many rows of each lane: after a crash or
        a lost reply. What there is beyond is taken over like anybody's, when its lease ends."""
        return [entry for lane in Lane for entry in self._claim(lane, most_rows, consumer=self.consumer)]

    def read_new(self, counts: Mapping[Lane, int]) -> list[Entry]:
        """Read up to so many new entries of each lane, without waiting."""
        return self._entries(ask_all(self.client, self._readings(counts))) if counts else []

    def wait_new(self, block_ms: int, count: int) -> list[Entry]:
        """Wait for new entries on any lane, and take up to so many of each."""
        lanes = [self.queue.lane(lane) for lane in Lane]
        command = ("XREADGROUP", "GROUP", GROUP, self.consumer, "COUNT", count, "BLOCK", block_ms, "STREAMS", *lanes)
        return self._entries(ask_all(self.client, [(*command, *(">" for _ in lanes))]))

    def finish(
        self,
        values: Sequence[tuple[bytes, bytes, int]],
        endings: Sequence[Ending],
        counts: Mapping[Lane, int] | None = None,
    ) -> list[Entry]:
        """Write replies (digest, value, TTL in seconds), end their rows, and read new entries, in one round trip.

        It is a transaction: no row ends whose reply Redis refuses to take. Raises unless all is done.
        """
        calls = [scripts.complete(self.queue, one.lane, one.digests, one.done) for one in endings]
        commands: list[tuple[Any, ...]] = []
        for digest, value, ttl_s in values:
            key = self.queue.reply(digest)
            commands.append(("SET", key, self._seal.close(key, value), "EX", ttl_s))
        commands += [*(call.command for call in calls), *self._readings(counts or {})]
        if not commands:
            return []
        *queued, done = ask_all(self.client, [("MULTI",), *commands, ("EXEC",)])
        raise_first([*queued, done])
        last = len(values) + len(calls)
        for reply, call in zip(done[len(values) : last], calls, strict=True):
            if isinstance(reply, NoScriptError):  # Redis was restarted; the replies are written
                self._run(call)
        raise_first(reply for reply in done[:last] if not isinstance(reply, NoScriptError))
        return self._entries(done[last:])

    def take_over(self, idle_ms: int, rows: Mapping[Lane, int]) -> list[Entry]:
        """Claim entries of each lane, of about so many rows, whose consumer has not renewed them for so long."""
        return [entry for lane, count in rows.items() for entry in self._claim(lane, count, idle_ms=idle_ms)]

    def _claim(self, lane: Lane, most_rows: int, *, idle_ms: int = 0, consumer: str | None = None) -> list[Entry]:
        """Make pending entries this consumer's, until they have so many rows."""
        if most_rows <= 0:
            return []
        stream = self.queue.lane(lane)
        try:
            pending: Any = self.client.xpending_range(
                stream, GROUP, min="-", max="+", count=most_rows, consumername=consumer, idle=idle_ms or None
            )
        except ResponseError as error:
            self._create_if_missing(error)
            return []
        entries: list[Entry] = []
        # An embed job is one row. How many a rerank job has is seen when it is there: one at a time.
        at_once = most_rows if self.queue.task == "embed" else 1
        for first in range(0, len(pending), at_once):
            if sum(entry.size.rows for entry in entries) >= most_rows:
                break
            entries += self._claim_these(lane, pending[first : first + at_once], idle_ms)
        return entries

    def _claim_these(self, lane: Lane, pending: Sequence[dict[str, Any]], idle_ms: int) -> list[Entry]:
        """Claim entries, and leave their delivery count as it is: it counts the attempts.

        Only one that was handed back unbegun (its count is 0) is delivered by this for the first time.
        """
        stream = self.queue.lane(lane)
        with self.client.pipeline(transaction=False) as pipeline:
            for one in pending:
                delivered = max(1, one["times_delivered"])
                pipeline.xclaim(stream, GROUP, self.consumer, idle_ms, [one["message_id"]], retrycount=delivered)
            claims = pipeline.execute()
        entries = []
        for one, claimed in zip(pending, claims, strict=True):
            for id_, fields in claimed:  # none, if another consumer was faster
                if fields:
                    entries.append(Entry(lane=lane, id=id_, fields=fields, attempts=one["times_delivered"]))
                else:  # deleted by whoever completed it; Redis 6.2 keeps it pending, later ones do not
                    self.client.xack(stream, GROUP, one["message_id"])
        return entries

    def note_attempt(self, lane: Lane, entry_id: bytes, attempts: int) -> bool:
        """Set how often the entry was begun, for whoever takes it over; False if it is no longer pending."""
        stream = self.queue.lane(lane)
        return bool(self.client.xclaim(stream, GROUP, self.consumer, 0, [entry_id], retrycount=attempts, justid=True))

    def renew(self, lane: Lane, entry_ids: Sequence[bytes]) -> None:
        """Show that the entries are being worked on."""
        self.client.xclaim(self.queue.lane(lane), GROUP, self.consumer, 0, list(entry_ids), justid=True)

    def hand_back(self, attempts: Mapping[tuple[Lane, bytes], int]) -> None:
        """Let any worker take the entries over at once, with so many attempts behind them: 0 as if never delivered."""
        with self.client.pipeline(transaction=False) as pipeline:
            for (lane, entry_id), count in attempts.items():
                pipeline.xclaim(
                    self.queue.lane(lane),
                    GROUP,
                    self.consumer,
                    0,
                    [entry_id],
                    idle=_HANDED_BACK_MS,
                    retrycount=count,
                    justid=True,
                )
            pipeline.execute()

    def replies(self, digests: Sequence[bytes]) -> list[bytes | None]:
        """Read the reply keys of rows; what does not verify is not there."""
        keys = [self.queue.reply(digest) for digest in digests]
        found: Any = ask(self.client, "MGET", *keys)
        return [self._seal.open(key, stored) for key, stored in zip(keys, found, strict=True)]

    def expire(self, lane: Lane, size: EntrySize, digests: Sequence[bytes]) -> bool:
        """Drop an entry whose time is over; False if somebody still waits for it."""
        return bool(self._run(scripts.expire(self.queue, lane, digests, size)))

    def bury(self, entry: Entry, code: str, reason: str, deliveries: int) -> None:
        """Write a dead letter: why, where and by whom, with the entry's own fields unless they are huge."""
        letter: Any = encode_letter(
            code=code,
            reason=reason,
            worker=self.consumer,
            lane=entry.lane,
            entry_id=entry.id,
            deliveries=deliveries,
            fields=entry.fields,
        )
        try:
            self.client.xadd(self.queue.dead, letter, maxlen=DEAD_LETTERS, approximate=True)
        except ResponseError as error:
            if not str(error).startswith(_SPOILT):
                raise
            logger.error("a dead letter cannot be written, the key %s is spoilt: %s", self.queue.dead, error)
            return
        if (self.client.memory_usage(self.queue.dead) or 0) > DEAD_LETTERS_BYTES:
            half: Any = self.client.xlen(self.queue.dead)
            self.client.xtrim(self.queue.dead, maxlen=half // 2, approximate=False)

    def reconnect(self) -> None:
        """Let the next command connect anew: behind the same name there may be another server by now."""
        self.client.connection_pool.disconnect()

    def forget_consumers(self, idle_ms: int) -> None:
        """Remove consumers of workers that are gone for good and hold nothing."""
        for lane in Lane:
            self._run(scripts.forget(self.queue, lane, idle_ms=idle_ms, keep=self.consumer))

    def now_ms(self) -> int:
        """Redis server time, from a local clock that is set by it now and then."""
        local_s = time.monotonic()
        if local_s - self._clock_read_at > _CLOCK_S:
            seconds, microseconds = self.client.time()
            self._clock_offset_ms = seconds * 1000 + microseconds / 1000 - local_s * 1000
            self._clock_read_at = local_s
        return int(local_s * 1000 + self._clock_offset_ms)

    def _readings(self, counts: Mapping[Lane, int]) -> list[tuple[Any, ...]]:
        group = ("XREADGROUP", "GROUP", GROUP, self.consumer)
        return [(*group, "COUNT", count, "STREAMS", self.queue.lane(lane), ">") for lane, count in counts.items()]

    def _entries(self, replies: Sequence[Any]) -> list[Entry]:
        """The entries in replies to XREADGROUP; a group that is missing is created, and has none yet."""
        for error in (reply for reply in replies if isinstance(reply, ResponseError)):
            self._create_if_missing(error)
        raise_first(reply for reply in replies if not isinstance(reply, ResponseError))
        lanes = {self.queue.lane(lane).encode(): lane for lane in Lane}
        return [
            Entry(lane=lanes[stream], id=id_, fields=dict(zip(parts[::2], parts[1::2], strict=True)) if parts else {})
            for reply in replies
            if reply and not isinstance(reply, ResponseError)
            for stream, entries in (reply.items() if isinstance(reply, dict) else reply)
            for id_, parts in entries
        ]

    def _create_if_missing(self, error: ResponseError) -> None:
        """After FLUSHALL or a failover to an empty server the groups are gone: make them again and go on."""
        if not str(error).startswith("NOGROUP"):
            raise error
        self.prepare()

    def _run(self, call: ScriptCall) -> Any:
        return run_script(self.client, call)
