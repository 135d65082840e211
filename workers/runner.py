"""The engine that both tasks share: take entries in, batch their rows, run the model, let the outcomes out."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from redis.exceptions import RedisError

from producer.errors import redacted
from producer.wire.codec import MAX_ROWS_PER_JOB
from producer.wire.keys import Lane
from producer.wire.messages import Reply
from workers.batching import LookAhead, QueuedRow, padded_tokens
from workers.intake import Intake
from workers.ledger import Ledger
from workers.outlet import Outlet
from workers.pace import Pace
from workers.progress import Progress
from workers.reader import LOOK_AHEAD_ROWS, Reader
from workers.stopping import StopSignal
from workers.streams import Streams
from workers.tasks import Task

logger = logging.getLogger("headrace.worker")

_MOST_OWN_ROWS = 4 * LOOK_AHEAD_ROWS
"""Rows of each lane that are read again after trouble: more than one worker ever holds."""

BULK_BATCH_S = 0.05
"""How long a bulk batch takes at most, about: it is the longest that an interactive row waits."""

_WORTH_READING_AHEAD_S = 0.002
"""A batch that is shorter is over before a second thread has read anything."""

_TAKE_OVERS_PER_LEASE = 8
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)


class Runner:
    """Runs one task on one queue until told to stop. Nothing that arrives on a stream ends it."""

    def __init__(
        self,
        *,
        task: Task,
        streams: Streams,
        ledger: Ledger,
        progress: Progress,
        stopping: StopSignal,
        batch_tokens: int,
        tokens_per_s: float = 0.0,
        bulk_share: float = 0.0,
        row_by_row: bool = False,
        reply_ttl_s: int,
        lease_s: float,
        max_text_bytes: int,
        most_rows: float = float("inf"),
    ) -> None:
        self._task = task
        self._streams = streams
        self._ledger = ledger
        self._progress = progress
        self._stopping = stopping
        self._lease_s = lease_s
        self._most_rows = most_rows
        self._outlet = Outlet(streams=streams, ledger=ledger, progress=progress, reply_ttl_s=reply_ttl_s)
        self._intake = Intake(
            task=task,
            streams=streams,
            outlet=self._outlet,
            ledger=ledger,
            progress=progress,
            max_text_bytes=max_text_bytes,
        )
        self._batch_tokens = batch_tokens
        self._pace = Pace(tokens_per_s)
        self._look_ahead = LookAhead(batch_tokens, bulk_share=bulk_share, row_by_row=row_by_row)
        self._reader = Reader(
            streams=streams,
            intake=self._intake,
            look_ahead=self._look_ahead,
            rows_per_job=1 if task.name == "embed" else MAX_ROWS_PER_JOB,
        )
        self._take_over_at = float("-inf")
        self._survivors: dict[tuple[Lane, bytes], int] = {}

    def run(self) -> None:
        """Work until `stopping` is set or enough rows are done; then finish the batch and hand the rest back."""
        failures = 0
        while not self._done():
            try:
                self._begin()
                while not self._done():
                    self._step()
                    failures = 0
            except (RedisError, OSError) as error:
                wait_s = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
                failures += 1
                logger.warning("Redis does not serve, trying again in %.1f s: %s", wait_s, redacted(error))
                self._streams.reconnect()
                # Nobody could renew: what looks abandoned gets the time of a lease to show that it is not.
                self._take_over_at = time.monotonic() + self._lease_s
                self._stopping.wait(wait_s)
        self._hand_back()

    def _done(self) -> bool:
        return self._stopping.is_set() or self._progress.rows_done >= self._most_rows

    def _begin(self) -> None:
        """Start from what Redis says is ours: what memory holds may have been taken over meanwhile.

        Entries that this very process held when Redis went away have not taken it down: they are no suspects for that.
        """
        self._survivors |= self._ledger.drain()
        self._look_ahead.clear()
        self._streams.prepare()
        own = self._streams.read_own(_MOST_OWN_ROWS)
        self._reader.admit(
            [replace(one, attempts=self._survivors.get((one.lane, one.id), one.attempts)) for one in own]
        )
        self._survivors.clear()

    def _step(self) -> None:
        if self._ledger.forfeited:
            self._begin()
        if not len(self._look_ahead):
            self._take_over()
        self._look_ahead.budgets[Lane.BULK] = self._pace.budget_tokens(BULK_BATCH_S, self._batch_tokens)
        batch = self._intake.wanted(self._reader.next_batch())
        self._take_over()  # in the room that the batch leaves, before new entries fill it
        self._progress.tick()
        if not batch:
            return
        suspect = batch[0].suspect
        read_ahead = not suspect and self._pace.seconds(padded_tokens(batch)) > _WORTH_READING_AHEAD_S
        with self._reader.ahead(read_ahead):
            outcomes = self._run_suspect(batch[0]) if suspect else self._run_batch(batch)
            jobs = {} if self._done() else self._reader.jobs_wanted(read_ahead=read_ahead)
            entries = self._outlet.finish(outcomes, jobs)
        self._reader.admit(entries, jobs)
        self._progress.tick()

    def _take_over(self) -> None:
        """Now and then, take in hand what other workers have left."""
        now = time.monotonic()
        if now >= self._take_over_at:
            self._take_over_at = now + self._lease_s / _TAKE_OVERS_PER_LEASE
            self._reader.admit(self._streams.take_over(int(self._lease_s * 1000), self._reader.room()))

    def _run_suspect(self, suspect: QueuedRow) -> list[tuple[QueuedRow, Reply]]:
        """Run a row by itself, and note the attempt first, where the next worker finds it if this one dies of it."""
        lane, entry_id = suspect.lane, suspect.entry_id
        deliveries = self._ledger.attempts(lane, entry_id) + 1
        if not self._streams.note_attempt(lane, entry_id, deliveries):
            self._ledger.drop(lane, entry_id)  # somebody else has ended it
            return []
        outcomes = self._run_batch([self._intake.measured(replace(suspect, deliveries=deliveries))])
        if len(self._ledger.open_digests(lane, entry_id)) > 1:  # the entry's next row starts anew, but alone
            self._streams.note_attempt(lane, entry_id, 1)
        self._ledger.set_attempts(lane, entry_id, 1)
        return outcomes

    def _run_batch(self, batch: Sequence[QueuedRow]) -> list[tuple[QueuedRow, Reply]]:
        """Run rows as one batch; if that fails, in halves, until a bad row is alone and fails nobody else."""
        started = time.monotonic()
        try:
            with self._progress.vitals.working():
                replies = self._task.run([queued.row for queued in batch])
        except Exception as error:  # noqa: BLE001 - a model may raise anything, and the worker must live
            if len(batch) > 1:
                middle = len(batch) // 2
                return self._run_batch(batch[:middle]) + self._run_batch(batch[middle:])
            logger.warning("a row of %d tokens failed: %s", batch[0].tokens, type(error).__name__)
            return [(batch[0], self._outlet.failure(error))]
        took_s = time.monotonic() - started
        self._pace.note(padded_tokens(batch), took_s)
        self._progress.count(
            rows=len(batch),
            batches=1,
            tokens=sum(queued.tokens for queued in batch),
            text_bytes=sum(len(queued.row.text.encode()) for queued in batch),
            busy_ms=max(1, round(took_s * 1000)),
        )
        return list(zip(batch, replies, strict=True))

    def _hand_back(self) -> None:
        """Let others take over at once what was read but not run, unless they have already."""
        self._reader.close()
        forfeited = self._ledger.forfeited
        attempts = self._ledger.drain()  # first, so that no heartbeat renews what is handed back
        if forfeited or not attempts:
            return
        try:
            self._streams.hand_back(attempts)
        except (RedisError, OSError) as error:
            logger.warning("jobs in hand could not be handed back, their lease will end: %s", redacted(error))
