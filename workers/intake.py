"""From stream entries to rows that must be computed: decode each alone, drop expired, check the cache, measure."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from producer.errors import HeadraceError, InvalidText, MalformedMessage
from producer.requests import clean_text
from producer.wire.codec import decode_job, decode_reply
from producer.wire.keys import Lane
from producer.wire.messages import EntrySize, FailureReply, Job, Reply, Row
from workers.batching import QueuedRow
from workers.entries import Entry
from workers.ledger import Ledger
from workers.outlet import Outlet
from workers.progress import Progress
from workers.streams import Streams
from workers.tasks import Measure, Task

logger = logging.getLogger("headrace.worker")


MOST_ATTEMPTS = 3
"""So often workers may begin an entry and never end it; then it is dead."""


class WorkerDied(HeadraceError):
    """Workers died, or were killed because they hung, whenever they ran the row."""

    code = "worker_died"


class Intake:
    """Takes entries in hand. What needs no model is ended here: bad, deadly, expired and already computed rows."""

    def __init__(
        self, *, task: Task, streams: Streams, outlet: Outlet, ledger: Ledger, progress: Progress, max_text_bytes: int
    ) -> None:
        self._task = task
        self._streams = streams
        self._outlet = outlet
        self._ledger = ledger
        self._progress = progress
        self._max_text_bytes = max_text_bytes

    def admit(self, entries: Sequence[Entry]) -> list[QueuedRow]:
        """Return the rows of these entries that the model must compute, in order; measured unless they are suspects."""
        jobs = [(entry, job) for entry in entries if (job := self._accept(entry)) is not None]
        for entry, job in jobs:
            entry.expires_at_ms = entry.created_at_ms + job.header.budget_ms
            digests = (row.digest for row in job.rows)
            self._ledger.open(entry.lane, entry.size, digests, attempts=entry.attempts)
        answered, rows = self._divide([(entry, row) for entry, job in jobs for row in job.rows])
        self._outlet.complete([(entry.lane, entry.id, row) for entry, row in answered])
        return self._measure(self._refuse(self._condemn(rows)))

    def measured(self, suspect: QueuedRow) -> QueuedRow:
        """Measure a suspect, which was taken in unmeasured: its workers may have died of that, too."""
        with self._progress.vitals.tokenizing():
            return replace(suspect, tokens=self._tokens(self._measures([suspect.row])[0]))

    def _divide(self, rows: Sequence[tuple[Entry, Row]]) -> tuple[list[tuple[Entry, Row]], list[tuple[Entry, Row]]]:
        """Tell the rows that somebody has answered meanwhile from those that are open.

        A failure counts for an entry that was begun before: there the row failed, and the worker died of a later one.
        """
        values = self._streams.replies([row.digest for _, row in rows]) if rows else []
        answered: list[tuple[Entry, Row]] = []
        open_: list[tuple[Entry, Row]] = []
        for (entry, row), value in zip(rows, values, strict=True):
            reply = _read(value)
            since_ms = entry.created_at_ms if entry.attempts else float("inf")
            stale = isinstance(reply, FailureReply) and reply.failed_at_ms < since_ms
            (open_ if reply is None or stale else answered).append((entry, row))
        return answered, open_

    def _condemn(self, rows: Sequence[tuple[Entry, Row]]) -> list[tuple[Entry, Row]]:
        """Bury the rows of which workers died: of an entry with no attempt left, the first that is open, since suspects
        run alone and in order. Return the others."""
        condemned: dict[tuple[Lane, bytes], Row] = {}
        for entry, row in rows:
            if entry.attempts >= MOST_ATTEMPTS and (entry.lane, entry.id) not in condemned:
                condemned[entry.lane, entry.id] = row
                logger.error("a row of %d bytes has taken its workers down: it is dead", len(row.text.encode()))
                failure = WorkerDied(f"{entry.attempts} times a worker died or hung with it in hand")
                self._outlet.condemn(_queued(entry, row, 1, entry.attempts), self._outlet.failure(failure))
        return [(entry, row) for entry, row in rows if condemned.get((entry.lane, entry.id)) != row]

    def _refuse(self, rows: Sequence[tuple[Entry, Row]]) -> list[tuple[Entry, Row]]:
        """Fail the rows that no model should see, each for itself; return the others."""
        good: list[tuple[Entry, Row]] = []
        bad: list[tuple[QueuedRow, Reply]] = []
        for entry, row in rows:
            try:
                clean_text(row.text, self._max_text_bytes)
                if row.query is not None:
                    clean_text(row.query, self._max_text_bytes, what="the query")
            except InvalidText as error:
                bad.append((_queued(entry, row, 1, entry.attempts + 1), self._outlet.failure(error)))
            else:
                good.append((entry, row))
        if bad:
            self._outlet.finish(bad)
        return good

    def _accept(self, entry: Entry) -> Job | None:
        if self._ledger.holds(entry.lane, entry.id):
            return None
        job = None
        try:
            job = decode_job(entry.fields)
            if not self._task.accepts(job.header.kind):
                raise MalformedMessage(f"rows of kind {job.header.kind} are not for {self._task.name} pools")
        except MalformedMessage as error:
            logger.warning("entry %s on lane %s cannot be run: %s", entry.id.decode(), entry.lane, error)
            self._outlet.reject(entry, job, error)
            return None
        late = self._streams.now_ms() > entry.created_at_ms + job.header.budget_ms
        # One with no attempt left is buried, however late: its callers may ask again, and never know why.
        if late and entry.attempts < MOST_ATTEMPTS and self._drop(entry.lane, entry.size, [r.digest for r in job.rows]):
            return None
        return job

    def wanted(self, batch: Sequence[QueuedRow]) -> list[QueuedRow]:
        """The rows of a batch that somebody may still wait for: while they were in hand, their time may have ended."""
        now_ms = self._streams.now_ms()
        for lane, entry_id in {(queued.lane, queued.entry_id) for queued in batch if now_ms > queued.expires_at_ms}:
            size = self._ledger.size(lane, entry_id)
            if size and self._drop(lane, size, self._ledger.open_digests(lane, entry_id)):
                self._ledger.drop(lane, entry_id)
        return [queued for queued in batch if self._ledger.holds(queued.lane, queued.entry_id)]

    def _drop(self, lane: Lane, size: EntrySize, digests: Sequence[bytes]) -> bool:
        """Drop a late entry, unless somebody who joined later still waits for it."""
        dropped = self._streams.expire(lane, size, digests)
        if dropped:
            self._progress.count(expired=1)
        return dropped

    def _measure(self, rows: Sequence[tuple[Entry, Row]]) -> list[QueuedRow]:
        fresh = [row for entry, row in rows if not entry.attempts]
        with self._progress.vitals.tokenizing():
            measures = iter(self._measures(fresh) if fresh else [])
        return [
            _queued(entry, row, 1, entry.attempts + 1)
            if entry.attempts
            else _queued(entry, row, self._tokens(next(measures)))
            for entry, row in rows
        ]

    def _tokens(self, measure: Measure) -> int:
        if measure.truncated:
            self._progress.count_truncated(measure.tokens)
        return max(1, measure.tokens)

    def _measures(self, rows: Sequence[Row]) -> list[Measure]:
        try:
            return self._task.measure(rows)
        except Exception:  # noqa: BLE001 - a tokenizer may raise anything; the row's own run will say so
            if len(rows) == 1:
                return [Measure(tokens=1, truncated=False)]
            return [measure for row in rows for measure in self._measures([row])]


def _queued(entry: Entry, row: Row, tokens: int, deliveries: int = 1) -> QueuedRow:
    return QueuedRow(
        row=row,
        lane=entry.lane,
        entry_id=entry.id,
        tokens=tokens,
        deliveries=deliveries,
        expires_at_ms=entry.expires_at_ms,
    )


def _read(value: bytes | None) -> Reply | None:
    try:
        return None if value is None else decode_reply(value)
    except MalformedMessage:
        return None
