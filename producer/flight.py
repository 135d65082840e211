"""One call's rows between look-up and answer, without I/O: what to ask Redis next, and what its answers mean.

The clients drive these generators: each `yield` is an effect they perform, and its answer is sent back in.
"""

import logging
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from producer.errors import HeadraceError, MalformedMessage, QueueFull, RedisUnavailable
from producer.wire import scripts
from producer.wire.codec import MAX_BUDGET_MS, decode_reply
from producer.wire.keys import Lane, QueueKeys
from producer.wire.messages import FailureReply, JobHeader, Reply, Row

logger = logging.getLogger("headrace.producer")

_ROWS_PER_LOOKUP = 1000
_ROWS_PER_ENQUEUE = 250
_BYTES_PER_ENQUEUE = 1 << 20
_FIRST_RECHECK_S = 0.1
_LAST_RECHECK_S = 2.0
_HEAL_AFTER_S = 1.0


@dataclass(frozen=True)
class Lookup:
    """Read reply keys. Answer: a list of `bytes | None`."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class Exists:
    """Ask which reply keys are there, without reading them. Answer: a list of 0 and 1."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class Enqueue:
    """Watch for hints of these rows, then run the script. Answer: its three numbers."""

    digests: tuple[bytes, ...]
    call: Callable[[str], scripts.ScriptCall]
    """Makes the call for a hint channel, which only the client knows."""


@dataclass(frozen=True)
class Wait:
    """Wait for hints, at most this long. Answer: the set of digests that came."""

    timeout_s: float


@dataclass(frozen=True)
class Count:
    """Add to the queue's counters, some time soon. Answer: None."""

    queue: QueueKeys
    hits: int
    misses: int


@dataclass(frozen=True)
class Inspect:
    """Read the state of the queue. Answer: a `QueueState`."""

    queue: QueueKeys


@dataclass(frozen=True)
class ListPools:
    """Read which pools have run. Answer: a map of b"task:tag" to the model's name in bytes."""


@dataclass(frozen=True)
class Pull:
    """Take up to `count` texts from the caller's iterator. Answer: a list, shorter only at the end."""

    count: int


@dataclass(frozen=True)
class Emit:
    """Hand one value to the caller's loop. Answer: None."""

    value: Any


Effect = Lookup | Exists | Enqueue | Wait | Count | Inspect | ListPools | Pull | Emit
Result = TypeVar("Result")
Flow = Generator[Effect, Any, Result]


class Flight:
    """Rows that one call waits for. A hint only says when to look: the reply key is the truth."""

    def __init__(self, *, queue: QueueKeys, lane: Lane, lane_limit: int, clock: Callable[[], float]) -> None:
        self.queue = queue
        self.lane = lane
        self.lane_limit = lane_limit
        self.clock = clock
        self.replies: dict[bytes, Reply] = {}
        self.pending: dict[bytes, Row] = {}
        self.cached: set[bytes] = set()
        self.progressed_at = clock()
        self._stale_failures: dict[bytes, bytes] = {}
        self._recheck_s = _FIRST_RECHECK_S
        self._healed_at = clock()
        self._unsent: dict[bytes, Row] = {}
        self._unsent_at = clock()

    def start(self, rows: Sequence[Row], timeout_s: float) -> Flow[None]:
        """Look the rows up, and put those that are missing on the lane with `timeout_s` to be computed."""
        unique = {row.digest: row for row in rows}
        new = [row for key, row in unique.items() if key not in self.replies and key not in self.pending]
        found = yield from self._look_up(new)
        for row in new:
            data = found.get(row.digest)
            reply = self._decode(data)
            if data is None or reply is None or isinstance(reply, FailureReply):
                if data is not None:
                    self._stale_failures[row.digest] = data
                self.pending[row.digest] = row
            else:
                self.replies[row.digest] = reply
                self.cached.add(row.digest)
        missing = [row for row in new if row.digest in self.pending]
        yield Count(self.queue, hits=len(new) - len(missing), misses=len(missing))
        if missing:
            self._arrived()
            yield from self._enqueue(missing, timeout_s)

    def advance(self, left_s: float) -> Flow[None]:
        """Wait for hints (at most `left_s`), take what is there, and heal what was lost on the way."""
        hinted = yield Wait(min(self._recheck_s, left_s))
        if self._unsent and self.clock() - self._unsent_at >= _HEAL_AFTER_S:
            yield from self._enqueue_again(list(self._unsent.values()), left_s)
        due = [self.pending[digest] for digest in hinted if digest in self.pending]
        if not due and not hinted:
            self._recheck_s = min(self._recheck_s * 2, _LAST_RECHECK_S)
            due = list(self.pending.values())
        if not due:
            return
        found = yield from self._look_up(due)
        if self._take(found):
            self._arrived()
        elif self.pending and self.clock() - self._healed_at >= max(_HEAL_AFTER_S, self._recheck_s):
            # No result and no hint: the job may be gone (flushed, evicted, dropped), or the caller's share of
            # its time may be over. Enqueueing again is a no-op while the job is there.
            self._healed_at = self.clock()
            yield from self._enqueue_again(list(self.pending.values()), left_s)

    def forget(self, digest: bytes) -> None:
        """Drop an answered row that nobody in this call needs any more."""
        self.replies.pop(digest, None)
        self.cached.discard(digest)
        self._stale_failures.pop(digest, None)

    def _arrived(self) -> None:
        self._recheck_s = _FIRST_RECHECK_S
        self.progressed_at = self._healed_at = self.clock()

    def _take(self, found: dict[bytes, bytes]) -> bool:
        before = len(self.pending)
        for key, data in found.items():
            reply = self._decode(data)
            if reply is not None and data != self._stale_failures.get(key):
                self.replies[key] = reply
                del self.pending[key]
                self._unsent.pop(key, None)
        return len(self.pending) < before

    def _look_up(self, rows: Sequence[Row]) -> Flow[dict[bytes, bytes]]:
        found: dict[bytes, bytes] = {}
        for chunk in _chunks(rows, _ROWS_PER_LOOKUP):
            try:
                values = yield Lookup(tuple(self.queue.reply(row.digest) for row in chunk))
            except RedisUnavailable as error:
                logger.warning("the cache cannot be read, going on without it: %s", error)
                continue
            found.update((row.digest, value) for row, value in zip(chunk, values, strict=True) if value is not None)
        return found

    def _decode(self, data: bytes | None) -> Reply | None:
        try:
            return None if data is None else decode_reply(data)
        except MalformedMessage as error:
            logger.warning("a cached reply cannot be read and counts as a miss: %s", error)
            return None

    def _enqueue_again(self, rows: Sequence[Row], timeout_s: float) -> Flow[None]:
        """Enqueue rows of a call that waits already: trouble is no reason to give up before its time is over."""
        try:
            yield from self._enqueue(rows, timeout_s)
        except (RedisUnavailable, QueueFull) as error:
            logger.warning("still waiting for %d rows: %s", len(self.pending), error)

    def _enqueue(self, rows: Sequence[Row], timeout_s: float) -> Flow[None]:
        budget_ms = min(max(1, int(timeout_s * 1000)), MAX_BUDGET_MS)
        for chunk in _sized_chunks(rows):
            header = JobHeader(kind=chunk[0].kind, budget_ms=budget_ms, query=chunk[0].query)

            def call(channel: str, header: JobHeader = header, chunk: list[Row] = chunk) -> scripts.ScriptCall:
                return scripts.enqueue(
                    self.queue, self.lane, header, chunk, channel=channel, lane_limit=self.lane_limit
                )

            added, _, queued = yield Enqueue(tuple(row.digest for row in chunk), call)
            full = added < 0
            for row in chunk:
                if full:
                    self._unsent[row.digest] = row
                else:
                    self._unsent.pop(row.digest, None)
            self._unsent_at = self.clock()
            if full and self.lane is Lane.INTERACTIVE:
                raise QueueFull(
                    f"lane interactive of {self.queue.task}:{self.queue.tag} holds {queued} jobs, the limit is "
                    f"{self.lane_limit}: nothing was added; try again later or add workers"
                )


def _chunks(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def _sized_chunks(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Cut rows so that no script call runs long or carries much: by rows and by bytes of text."""
    chunk: list[Row] = []
    size = 0
    for row in rows:
        row_bytes = len(row.text.encode())
        if chunk and (len(chunk) == _ROWS_PER_ENQUEUE or size + row_bytes > _BYTES_PER_ENQUEUE):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += row_bytes
    if chunk:
        yield chunk


class Steps(Generic[Result]):
    """Runs a flow step by step: perform `effect`, then `send` its answer or `throw` its error, until it is None."""

    def __init__(self, flow: Flow[Result]) -> None:
        self._flow = flow
        self._result: list[Result] = []
        self.effect: Effect | None = None
        self._step(lambda: next(flow))

    @property
    def result(self) -> Result:
        """What the flow returned; there once `effect` is None."""
        return self._result[0]

    def send(self, answer: Any) -> None:
        self._step(lambda: self._flow.send(answer))

    def throw(self, error: HeadraceError) -> None:
        self._step(lambda: self._flow.throw(error))

    def _step(self, resume: Callable[[], Effect]) -> None:
        try:
            self.effect = resume()
        except StopIteration as stop:
            self.effect = None
            self._result.append(stop.value)
