"""The Lua scripts: their sources, their SHA-1, and builders for the keys and arguments of each call."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha1
from importlib.resources import files

from producer.wire.codec import MAX_ROWS_PER_JOB, encode_header
from producer.wire.keys import GROUP, Lane, QueueKeys
from producer.wire.messages import EntrySize, JobHeader, Row

Argument = str | bytes | int


@dataclass(frozen=True)
class Script:
    """One Lua file."""

    name: str

    @cached_property
    def source(self) -> bytes:
        return files("producer.wire").joinpath("lua", f"{self.name}.lua").read_bytes()

    @cached_property
    def sha(self) -> str:
        return sha1(self.source, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, kw_only=True)
class ScriptCall:
    """A script with its keys and arguments, ready for EVALSHA."""

    script: Script
    keys: tuple[str, ...]
    arguments: tuple[Argument, ...]

    @property
    def command(self) -> tuple[Argument, ...]:
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys, *self.arguments)


MAX_ROWS_PER_CALL = 2 * MAX_ROWS_PER_JOB
MAX_BYTES_PER_CALL = 1 << 20
"""How much one call of `enqueue` carries, so that no script runs for long."""


@dataclass(frozen=True, kw_only=True)
class LaneLimit:
    """How much a lane may hold; an empty lane takes one row, whatever its size."""

    rows: int
    size_bytes: int


@cache
def script(name: str) -> Script:
    """The script of that name."""
    return Script(name)


def enqueue(
    queue: QueueKeys,
    lane: Lane,
    header: JobHeader,
    rows: Sequence[Row],
    *,
    channel: str,
    limit: LaneLimit,
) -> ScriptCall:
    """Put rows on a lane, or attach to their flight. One job holds one text, or up to 100 pairs of one query."""
    other = Lane.BULK if lane is Lane.INTERACTIVE else Lane.INTERACTIVE
    rows_per_job = MAX_ROWS_PER_JOB if header.query is not None else 1
    return ScriptCall(
        script=script("enqueue"),
        keys=(queue.lane(lane), queue.lane(other), queue.load, *(queue.wait(row.digest) for row in rows)),
        arguments=(
            lane.value,
            channel,
            header.budget_ms,
            limit.rows,
            limit.size_bytes,
            rows_per_job,
            encode_header(header),
            *(row.text.encode() for row in rows),
        ),
    )


def complete(queue: QueueKeys, lane: Lane, digests: Sequence[bytes], done: Sequence[EntrySize]) -> ScriptCall:
    """End rows whose replies are written, and the entries that have no row left."""
    return ScriptCall(
        script=script("complete"),
        keys=(queue.lane(lane), queue.load, *(queue.wait(digest) for digest in digests)),
        arguments=(GROUP, lane.value, *digests, *(part for entry in done for part in _parts(entry))),
    )


def expire(queue: QueueKeys, lane: Lane, digests: Sequence[bytes], entry: EntrySize) -> ScriptCall:
    """Drop a job whose time is over, unless a later caller still waits for it."""
    return ScriptCall(
        script=script("expire"),
        keys=(queue.lane(lane), queue.load, *(queue.wait(digest) for digest in digests)),
        arguments=(GROUP, lane.value, *_parts(entry)),
    )


def forget(queue: QueueKeys, lane: Lane, *, idle_ms: int, keep: str) -> ScriptCall:
    """Remove consumers that were idle for so long and hold nothing, except one."""
    return ScriptCall(script=script("forget"), keys=(queue.lane(lane),), arguments=(GROUP, idle_ms, keep))


def claim(queue: QueueKeys, name: str, seen: bytes, heartbeat: bytes) -> ScriptCall:
    """Take a worker's name, unless its heartbeat is no longer the one that was seen."""
    return ScriptCall(script=script("claim"), keys=(queue.workers,), arguments=(name, seen, heartbeat))


def _parts(entry: EntrySize) -> tuple[Argument, ...]:
    return entry.id, entry.rows, entry.size_bytes


ALL = tuple(script(name) for name in ("claim", "complete", "enqueue", "expire", "forget"))
"""Every script; workers keep them loaded, since a producer may lack the right to."""
