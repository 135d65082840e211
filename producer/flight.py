"""One call's rows between look-up and answer, without I/O: what to ask Redis next, and what its answers mean."""

import logging
from collections.abc import Callable, Iterator, Sequence

from producer.effects import Count, Enqueue, Flow, Inspect, Lookup, Unwatch, Wait
from producer.errors import MalformedMessage, QueueFull, RedisUnavailable
from producer.wire import scripts
from producer.wire.codec import MAX_BUDGET_MS, decode_reply
from producer.wire.keys import Lane, QueueKeys
from producer.wire.messages import FailureReply, JobHeader, Reply, Row
from producer.wire.signing import Seal

logger = logging.getLogger("headrace.producer")

Stored = Sequence[bytes | None]
"""What reply keys hold, in the order of their rows."""

ROWS_PER_LOOKUP = 1000
"""Keys that one command reads."""

_FIRST_RECHECK_S = 0.1
_LAST_RECHECK_S = 2.0
_HEAL_AFTER_S = 1.0


class Flight:
    """Rows that one call waits for. A hint only says when to look: the reply key is the truth."""

    def __init__(
        self, *, queue: QueueKeys, lane: Lane, limit: scripts.LaneLimit, seal: Seal, clock: Callable[[], float]
    ) -> None:
        self.queue = queue
        self.lane = lane
        self.limit = limit
        self.seal = seal
        self.clock = clock
        self.replies: dict[bytes, Reply] = {}
        self.pending: dict[bytes, Row] = {}
        self.cached: set[bytes] = set()
        self.unverified: set[bytes] = set()
        """Rows whose stored value does not verify: they count as missing."""

        self.progressed_at = clock()
        self._stale_failures: dict[bytes, Reply] = {}
        self._recheck_s = _FIRST_RECHECK_S
        self._healed_at = clock()
        self._unsent: dict[bytes, Row] = {}
        self._unsent_at = clock()
        self._reached = False

    def start(self, rows: Sequence[Row], deadline: float, stored: Stored | None = None) -> Flow[None]:
        """Look the rows up, and put those that are missing on the lane, to be computed until `deadline`.

        With `stored`, what the reply keys of these first rows hold, they are not looked up.

        Raises:
            RedisUnavailable: Redis does not answer in time, or refuses the jobs; on the bulk lane, from the first.
            QueueFull: the interactive lane does not take them.
        """
        unique = {row.digest: row for row in rows}
        new = [row for key, row in unique.items() if key not in self.replies and key not in self.pending]
        found = (yield from self._look_up(new, deadline)) if stored is None else self._read(rows, stored)
        results = {key: reply for key, reply in found.items() if not isinstance(reply, FailureReply)}
        self._stale_failures.update({key: found[key] for key in found.keys() - results.keys()})
        self.replies.update(results)
        self.cached.update(results)
        yield Count(self.queue, len(results), len(new) - len(results))
        if len(results) < len(new):
            missing = [row for row in new if row.digest not in results]
            self.pending.update({row.digest: row for row in missing})
            self._arrived()
            if self.lane is Lane.BULK and self._reached:  # a long run does not end for a moment's trouble
                yield from self._enqueue_again(missing, deadline)
            else:
                yield from self._enqueue(missing, deadline)

    def advance(self, deadline: float) -> Flow[None]:
        """Wait for hints (until `deadline` at most), take what is there, and heal what was lost on the way."""
        hinted = yield Wait(min(self._recheck_s, max(0.0, deadline - self.clock())))
        if self._unsent and self.clock() - self._unsent_at >= _HEAL_AFTER_S:
            yield from self._enqueue_again(list(self._unsent.values()), deadline)
        if hinted:
            due = [self.pending[digest] for digest in hinted if digest in self.pending]
        else:
            self._recheck_s = min(self._recheck_s * 2, _LAST_RECHECK_S)
            due = list(self.pending.values())
        yield from self._take(due, deadline, hinted)
        if self.pending and self.clock() - self._healed_at >= max(_HEAL_AFTER_S, self._recheck_s):
            # Nothing for a while: jobs may be gone (flushed, evicted, dropped), or the callers' share of their time
            # may be over. Enqueueing again is a no-op while a job is there.
            self._healed_at = self.clock()
            yield from self._enqueue_again(list(self.pending.values()), deadline)

    def look_again(self, deadline: float) -> Flow[None]:
        """Take what is there now, before giving up."""
        yield from self._take(list(self.pending.values()), deadline, set())

    def forget(self, digest: bytes) -> None:
        """Drop an answered row that nobody in this call needs any more."""
        self.replies.pop(digest, None)
        self.cached.discard(digest)
        self._stale_failures.pop(digest, None)

    def _arrived(self) -> None:
        self._recheck_s = _FIRST_RECHECK_S
        self.progressed_at = self._healed_at = self.clock()

    def _take(self, rows: Sequence[Row], deadline: float, hinted: set[bytes]) -> Flow[None]:
        """Look rows up and close those that are answered; hints that will come for them are of no use any more."""
        found = yield from self._look_up(rows, deadline)
        answered = []
        for key, reply in found.items():
            if reply != self._stale_failures.get(key):
                self.replies[key] = reply
                del self.pending[key]
                self._unsent.pop(key, None)
                answered.append(key)
        if answered:
            self._arrived()
        if unhinted := tuple(key for key in answered if key not in hinted):
            yield Unwatch(unhinted)

    def _look_up(self, rows: Sequence[Row], deadline: float) -> Flow[dict[bytes, Reply]]:
        """Read what is there of the rows' replies."""
        found: dict[bytes, Reply] = {}
        for chunk in _chunks(rows, ROWS_PER_LOOKUP):
            keys = tuple([self.queue.reply(row.digest) for row in chunk])
            try:
                values = yield Lookup(keys, max(0.0, deadline - self.clock()))
            except RedisUnavailable as error:
                warn_of_lookup(error)
                break
            found |= self._read(chunk, values)
        return found

    def _read(self, rows: Sequence[Row], stored: Stored) -> dict[bytes, Reply]:
        """Decode what the rows' reply keys hold; what is spoilt or does not verify counts as missing."""
        found: dict[bytes, Reply] = {}
        signed = self.seal.signs
        for row, data in zip(rows, stored, strict=True):
            if data is None:
                continue
            value = self.seal.open(self.queue.reply(row.digest), data) if signed else data
            try:
                if value is None:
                    raise MalformedMessage("it does not verify")
                found[row.digest] = decode_reply(value)
            except MalformedMessage:
                self._note_unverified(row.digest)
        return found

    def _note_unverified(self, digest: bytes) -> None:
        if not self.unverified:
            logger.warning("a cached reply cannot be read or does not verify: it counts as a miss (said once a call)")
        self.unverified.add(digest)

    def _enqueue_again(self, rows: Sequence[Row], deadline: float) -> Flow[None]:
        """Enqueue rows of a call that waits already: trouble is no reason to give up before its time is over."""
        try:
            yield from self._enqueue(rows, deadline)
        except (RedisUnavailable, QueueFull) as error:
            logger.warning("still waiting for %d rows: %s", len(self.pending), error)

    def _enqueue(self, rows: Sequence[Row], deadline: float) -> Flow[None]:
        self._unsent.update((row.digest, row) for row in rows)
        self._unsent_at = self.clock()
        for chunk in _sized_chunks(rows):
            left_s = max(0.0, deadline - self.clock())
            budget_ms = min(max(1, int(left_s * 1000)), MAX_BUDGET_MS)
            header = JobHeader(kind=chunk[0].kind, budget_ms=budget_ms, query=chunk[0].query)

            def call(channel: str, header: JobHeader = header, chunk: list[Row] = chunk) -> scripts.ScriptCall:
                return scripts.enqueue(self.queue, self.lane, header, chunk, channel=channel, limit=self.limit)

            _, _, held, handled = yield Enqueue(tuple(row.digest for row in chunk), call, left_s)
            self._reached = True
            for row in chunk[:handled]:
                self._unsent.pop(row.digest, None)
            if handled < len(chunk):
                break  # the lane is full: more would only be asked in vain
        if self._unsent and self.lane is Lane.INTERACTIVE:
            raise (yield from self._full(held, len(rows)))

    def _full(self, held: int, asked: int) -> Flow[QueueFull]:
        """Build the error of an interactive call that its lane does not take, with an estimate of the wait."""
        wait_s: float | None = None
        try:
            state = yield Inspect(self.queue)
            wait_s = state.estimated_wait_s(self.lane)
        except RedisUnavailable as error:
            logger.warning("the wait cannot be estimated: %s", error)
        estimate = "nobody knows how long they take" if wait_s is None else f"they take about {wait_s:.1f} s"
        return QueueFull(
            f"lane {self.lane} of {self.queue.task}:{self.queue.tag} holds {held} rows ({estimate}), the limit is "
            f"{self.limit.rows} rows or {self.limit.size_bytes} bytes: {len(self._unsent)} of {asked} rows were not "
            "added; try again later or add workers",
            estimated_wait_s=wait_s,
        )


def warn_of_lookup(error: RedisUnavailable) -> None:
    """Say that results may be computed anew."""
    logger.warning("the cache cannot be read, going on without it: %s", error)


def _chunks(rows: Sequence[Row], size: int) -> Iterator[Sequence[Row]]:
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def _sized_chunks(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Cut rows so that no script call runs long or carries much: by rows and by bytes of text."""
    chunk: list[Row] = []
    size = 0
    for row in rows:
        row_bytes = len(row.text.encode())
        if chunk and (len(chunk) == scripts.MAX_ROWS_PER_CALL or size + row_bytes > scripts.MAX_BYTES_PER_CALL):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += row_bytes
    if chunk:
        yield chunk
