"""From stream entries to rows that must be computed: decode each alone, drop expired, check the cache, measure."""

import logging
from collections.abc import Sequence

from producer.errors import InvalidText, MalformedMessage
from producer.requests import clean_text
from producer.wire.codec import decode_job, is_result
from producer.wire.messages import Job, Reply, Row
from workers.batching import QueuedRow
from workers.ledger import Ledger
from workers.outlet import Outlet
from workers.progress import Progress
from workers.streams import Entry, Streams
from workers.tasks import Measure, Task

logger = logging.getLogger("headrace.worker")


class Intake:
    """Takes entries in hand. What needs no model is ended here: bad, expired and already computed rows."""

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
        """Return the rows of these entries that the model must compute, measured."""
        jobs = [(entry, job) for entry in entries if (job := self._accept(entry)) is not None]
        cached = self._cached([row for _, job in jobs for row in job.rows])
        for entry, job in jobs:
            self._ledger.open(entry.lane, entry.id, (row.digest for row in job.rows))
        rows = [(entry, row) for entry, job in jobs for row in job.rows]
        self._outlet.complete([(entry.lane, entry.id, row) for entry, row in rows if row.digest in cached])
        return self._measure(self._refuse([(entry, row) for entry, row in rows if row.digest not in cached]))

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
                queued = QueuedRow(row=row, lane=entry.lane, entry_id=entry.id, tokens=1)
                bad.append((queued, self._outlet.failure(error)))
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
                raise MalformedMessage(f"rows of kind {job.header.kind} are not for a {self._task.name} pool")
        except MalformedMessage as error:
            logger.warning("entry %s on lane %s cannot be run: %s", entry.id.decode(), entry.lane, error)
            self._outlet.reject(entry, job, error)
            return None
        return None if self._dropped(entry, job) else job

    def _dropped(self, entry: Entry, job: Job) -> bool:
        """Drop a job whose callers have all given up."""
        if self._streams.now_ms() - entry.created_at_ms <= job.header.budget_ms:
            return False
        dropped = self._streams.expire(entry, [row.digest for row in job.rows])
        if dropped:
            self._progress.count(expired=1)
        return dropped

    def _cached(self, rows: Sequence[Row]) -> set[bytes]:
        """Find rows that somebody has computed meanwhile."""
        if not rows:
            return set()
        values = self._streams.replies([row.digest for row in rows])
        return {row.digest for row, value in zip(rows, values, strict=True) if is_result(value)}

    def _measure(self, rows: Sequence[tuple[Entry, Row]]) -> list[QueuedRow]:
        if not rows:
            return []
        queued = []
        for (entry, row), measure in zip(rows, self._measures([row for _, row in rows]), strict=True):
            if measure.truncated:
                self._progress.count_truncated(measure.tokens)
            queued.append(QueuedRow(row=row, lane=entry.lane, entry_id=entry.id, tokens=max(1, measure.tokens)))
        return queued

    def _measures(self, rows: Sequence[Row]) -> list[Measure]:
        try:
            return self._task.measure(rows)
        except Exception:  # noqa: BLE001 - a tokenizer may raise anything; the row's own run will say so
            if len(rows) == 1:
                return [Measure(tokens=1, truncated=False)]
            return [measure for row in rows for measure in self._measures([row])]
