"""The worker's side of the streams: read, take over, renew, write replies, acknowledge. One connection, no policy."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import ResponseError

from producer.connection import run_script
from producer.wire import scripts
from producer.wire.keys import GROUP, Lane, QueueKeys
from producer.wire.scripts import ScriptCall

DEAD_LETTERS = 10_000
"""Dead letters kept, about; older ones are trimmed."""

DEAD_PREFIX = b"dead:"
"""Names of the fields that say why an entry died; its own fields stand beside them as they were."""

_HANDED_BACK_MS = 24 * 3600 * 1000
_CLAIM_PAGES = 50
_CLOCK_S = 30.0
_MAX_BURIED_BYTES = 8 * 1024


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One stream entry as it was read."""

    lane: Lane
    id: bytes
    fields: Mapping[bytes, bytes]

    @property
    def created_at_ms(self) -> int:
        """Redis server time at which it was added."""
        return int(self.id.split(b"-")[0])


class Streams:
    """One consumer on the lanes of one queue. Every method is one round trip (or two) and may raise RedisError."""

    def __init__(self, client: redis.Redis, queue: QueueKeys, consumer: str) -> None:
        self.client = client
        self.queue = queue
        self.consumer = consumer
        self._cursors: dict[Lane, bytes] = dict.fromkeys(Lane, b"0-0")
        self._clock_offset_ms = 0.0
        self._clock_read_at = float("-inf")

    def prepare(self) -> None:
        """Create the groups where they are missing, from the stream's start: queued jobs count."""
        for lane in Lane:
            try:
                self.client.xgroup_create(self.queue.lane(lane), GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    def read_own(self, counts: Mapping[Lane, int]) -> list[Entry]:
        """Read what this consumer was given and has not acknowledged: after a crash or a lost reply.

        What there is beyond the counts is taken over like anybody's, when its lease ends.
        """
        entries = []
        for lane, count in counts.items():
            found = self._read_lanes({lane: "0"}, count=max(1, count), block_ms=None)
            for entry in found:
                if entry.fields:
                    entries.append(entry)
                else:  # deleted meanwhile by somebody who completed it
                    self.client.xack(self.queue.lane(lane), GROUP, entry.id)
        return entries

    def read_new(self, counts: Mapping[Lane, int]) -> list[Entry]:
        """Read up to so many new entries of each lane, without waiting."""
        entries: list[Entry] = []
        for lane, count in counts.items():
            if count > 0:
                entries += self._read_lanes({lane: ">"}, count=count, block_ms=None)
        return entries

    def wait_new(self, block_ms: int) -> list[Entry]:
        """Wait for new entries on any lane; few, since the count is for each lane."""
        return self._read_lanes(dict.fromkeys(Lane, ">"), count=1, block_ms=block_ms)

    def take_over(self, idle_ms: int, counts: Mapping[Lane, int]) -> list[Entry]:
        """Claim up to so many entries of each lane whose consumer has not renewed them for so long."""
        entries: list[Entry] = []
        for lane, count in counts.items():
            for _ in range(_CLAIM_PAGES if count > 0 else 0):
                found = self._claim_page(lane, idle_ms, count)
                entries += found
                if found or self._cursors[lane] == b"0-0":
                    break
        return entries

    def _claim_page(self, lane: Lane, idle_ms: int, count: int) -> list[Entry]:
        """One XAUTOCLAIM, which looks at ten times COUNT entries; the cursor goes on where it stopped."""
        try:
            cursor, found, *_ = self.client.xautoclaim(
                self.queue.lane(lane),
                GROUP,
                self.consumer,
                min_idle_time=idle_ms,
                start_id=self._cursors[lane],
                count=count,
            )
        except ResponseError as error:
            self._create_if_missing(error)
            self._cursors[lane] = b"0-0"
            return []
        self._cursors[lane] = cursor
        return [Entry(lane=lane, id=id_, fields=fields) for id_, fields in found if id_ and fields]

    def renew(self, lane: Lane, entry_ids: Sequence[bytes]) -> None:
        """Show that the entries are being worked on."""
        self.client.xclaim(self.queue.lane(lane), GROUP, self.consumer, 0, list(entry_ids), justid=True)

    def hand_back(self, lane: Lane, entry_ids: Sequence[bytes]) -> None:
        """Let any worker take the entries over at once."""
        self.client.xclaim(
            self.queue.lane(lane), GROUP, self.consumer, 0, list(entry_ids), idle=_HANDED_BACK_MS, justid=True
        )

    def replies(self, digests: Sequence[bytes]) -> list[bytes | None]:
        """Read the reply keys of rows."""
        found: Any = self.client.mget([self.queue.reply(digest) for digest in digests])
        return list(found)

    def write_replies(self, values: Sequence[tuple[bytes, bytes, int]]) -> None:
        """Write (digest, value, TTL in seconds); raises unless all are written: only then may rows be completed."""
        with self.client.pipeline(transaction=False) as pipeline:
            for digest, value, ttl_s in values:
                pipeline.set(self.queue.reply(digest), value, ex=ttl_s)
            pipeline.execute()

    def complete(self, lane: Lane, digests: Sequence[bytes], entry_ids: Sequence[bytes]) -> None:
        """Wake who waits for the rows; acknowledge and delete the entries."""
        self._run(scripts.complete(self.queue, lane, digests, entry_ids))

    def expire(self, entry: Entry, digests: Sequence[bytes]) -> bool:
        """Drop an entry whose time is over; False if somebody still waits for it."""
        return bool(self._run(scripts.expire(self.queue, entry.lane, digests, entry.id)))

    def bury(self, entry: Entry, code: str, reason: str) -> None:
        """Write a dead letter: why, where and by whom, with the entry's own fields unless they are huge."""
        letter: dict[Any, Any] = {
            DEAD_PREFIX + b"code": code,
            DEAD_PREFIX + b"reason": reason,
            DEAD_PREFIX + b"worker": self.consumer,
            DEAD_PREFIX + b"lane": entry.lane.value,
            DEAD_PREFIX + b"entry": entry.id,
        }
        if sum(len(name) + len(value) for name, value in entry.fields.items()) <= _MAX_BURIED_BYTES:
            letter.update(entry.fields)
        self.client.xadd(self.queue.dead, letter, maxlen=DEAD_LETTERS, approximate=True)

    def now_ms(self) -> int:
        """Redis server time, from a local clock that is set by it now and then."""
        local_s = time.monotonic()
        if local_s - self._clock_read_at > _CLOCK_S:
            seconds, microseconds = self.client.time()
            self._clock_offset_ms = seconds * 1000 + microseconds / 1000 - local_s * 1000
            self._clock_read_at = local_s
        return int(local_s * 1000 + self._clock_offset_ms)

    def _read_lanes(self, starts: Mapping[Lane, str], count: int | None, block_ms: int | None) -> list[Entry]:
        lanes = {self.queue.lane(lane).encode(): lane for lane in starts}
        streams: Any = {self.queue.lane(lane): start for lane, start in starts.items()}
        try:
            found: Any = self.client.xreadgroup(GROUP, self.consumer, streams, count=count, block=block_ms)
        except ResponseError as error:
            self._create_if_missing(error)
            return []
        return [
            Entry(lane=lanes[stream], id=id_, fields=fields or {})
            for stream, entries in found or []
            for id_, fields in entries
        ]

    def _create_if_missing(self, error: ResponseError) -> None:
        """After FLUSHALL or a failover to an empty server the groups are gone: make them again and go on."""
        if not str(error).startswith("NOGROUP"):
            raise error
        self.prepare()

    def _run(self, call: ScriptCall) -> Any:
        return run_script(self.client, call)
