"""From outcomes to Redis: write the replies, then wake the waiters and end the entries; bury what failed."""

from collections.abc import Mapping, Sequence

from producer.errors import HeadraceError
from producer.wire.codec import HEADER_FIELD, encode_header, encode_reply, is_result
from producer.wire.keys import Lane
from producer.wire.messages import FailureReply, Job, JobHeader, Reply, Row
from workers.batching import QueuedRow
from workers.entries import Ending, Entry
from workers.ledger import Ledger
from workers.progress import Progress
from workers.streams import Streams

FAILURE_TTL_S = 60
"""How long those who wait can read why a row failed."""

_RETRY_BUDGET_MS = 60_000


class Outlet:
    """Ends rows and entries. Replies first, so that whoever wakes finds its result, and a crash repeats work only."""

    def __init__(self, *, streams: Streams, ledger: Ledger, progress: Progress, reply_ttl_s: int) -> None:
        self._streams = streams
        self._ledger = ledger
        self._progress = progress
        self._reply_ttl_s = reply_ttl_s

    def finish(
        self, outcomes: Sequence[tuple[QueuedRow, Reply]], counts: Mapping[Lane, int] | None = None
    ) -> list[Entry]:
        """Write the replies of rows, bury those that failed, and complete them all; return new entries of the lanes."""
        new = self._without_late_failures(outcomes)
        for queued, reply in new:
            if isinstance(reply, FailureReply):
                self._bury_row(queued, reply)
        ended = [(queued.lane, queued.entry_id, queued.row) for queued, _ in outcomes]
        return self._end(new, ended, counts)

    def condemn(self, queued: QueuedRow, failure: FailureReply) -> None:
        """End a row of which workers died. Its entry's other rows begin anew, before anybody can see this one ended.

        In this order the letter may be written twice if this worker dies here, but no other row dies for it.
        """
        self._bury_row(queued, failure)
        self._streams.note_attempt(queued.lane, queued.entry_id, 1)
        self._ledger.set_attempts(queued.lane, queued.entry_id, 1)
        self._end([(queued, failure)], [(queued.lane, queued.entry_id, queued.row)])

    def complete(self, rows: Sequence[tuple[Lane, bytes, Row]]) -> None:
        """Wake who waits for (lane, entry id, row), which somebody else has answered."""
        if rows:
            self._end([], rows)

    def _end(
        self,
        outcomes: Sequence[tuple[QueuedRow, Reply]],
        rows: Sequence[tuple[Lane, bytes, Row]],
        counts: Mapping[Lane, int] | None = None,
    ) -> list[Entry]:
        """Write the outcomes, end the rows (lane, entry id, row), and only then let go of them."""
        by_lane = {lane: [(entry_id, row.digest) for at, entry_id, row in rows if at is lane] for lane in Lane}
        endings = [
            Ending(lane=lane, digests=[digest for _, digest in mine], done=self._ledger.ended_by(lane, mine))
            for lane, mine in by_lane.items()
            if mine
        ]
        values = [
            (
                queued.row.digest,
                encode_reply(reply),
                FAILURE_TTL_S if isinstance(reply, FailureReply) else self._reply_ttl_s,
            )
            for queued, reply in outcomes
        ]
        entries = self._streams.finish(values, endings, counts)
        for lane, mine in by_lane.items():
            self._ledger.close(lane, mine)
        return entries

    def _bury_row(self, queued: QueuedRow, failure: FailureReply) -> None:
        entry = Entry(lane=queued.lane, id=queued.entry_id, fields=_row_fields(queued.row))
        self._bury(entry, failure.code, failure.message, queued.deliveries)

    def _without_late_failures(self, outcomes: Sequence[tuple[QueuedRow, Reply]]) -> list[tuple[QueuedRow, Reply]]:
        """Leave out failures of rows that somebody else has computed meanwhile: none overwrites a result."""
        failed = [queued.row.digest for queued, reply in outcomes if isinstance(reply, FailureReply)]
        values = self._streams.replies(failed) if failed else []
        answered = {digest for digest, value in zip(failed, values, strict=True) if is_result(value)}
        return [
            (queued, reply)
            for queued, reply in outcomes
            if not (isinstance(reply, FailureReply) and queued.row.digest in answered)
        ]

    def reject(self, entry: Entry, job: Job | None, error: HeadraceError) -> None:
        """Bury an entry that cannot be run; if it could be decoded, those who wait are told why."""
        self._bury(entry, error.code, str(error), entry.attempts + 1)
        digests = [row.digest for row in job.rows] if job else []
        value = encode_reply(self.failure(error))
        self._streams.finish(
            [(digest, value, FAILURE_TTL_S) for digest in digests],
            [Ending(lane=entry.lane, digests=digests, done=[entry.size])],
        )

    def failure(self, error: Exception) -> FailureReply:
        """Say why a row failed. What a model raises may quote the text: only our own errors' words leave the worker."""
        code, message = "model_failed", f"the model raised {type(error).__name__}"
        if isinstance(error, HeadraceError):
            code, message = error.code, str(error)
        return FailureReply(code=code, message=message, failed_at_ms=self._streams.now_ms())

    def _bury(self, entry: Entry, code: str, reason: str, deliveries: int) -> None:
        self._streams.bury(entry, code, reason, deliveries)
        self._progress.count(**{f"dead_{entry.lane}": 1})


def _row_fields(row: Row) -> dict[bytes, bytes]:
    """The stream fields of a job with this row alone, so that a dead letter can be tried again."""
    header = JobHeader(kind=row.kind, budget_ms=_RETRY_BUDGET_MS, query=row.query)
    return {HEADER_FIELD: encode_header(header), b"0": row.text.encode()}
