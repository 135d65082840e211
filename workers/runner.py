"""The engine that both tasks share: take entries in, batch their rows, run the model, let the outcomes out."""

import logging
import time
from collections.abc import Sequence

from redis.exceptions import RedisError

from producer.wire.codec import MAX_ROWS_PER_JOB
from producer.wire.keys import Lane
from producer.wire.messages import Reply
from workers.batching import LookAhead, QueuedRow
from workers.intake import Intake
from workers.ledger import Ledger
from workers.outlet import Outlet
from workers.progress import Progress
from workers.stopping import StopSignal
from workers.streams import Entry, Streams
from workers.tasks import Task

logger = logging.getLogger("headrace.worker")

LOOK_AHEAD_ROWS = 64
"""Rows of each lane that one worker holds at most: enough to sort by length."""

READ_ROWS = 16
"""Rows of each lane that one reading takes: workers share a burst, and only a backlog fills the look-ahead."""

_BLOCK_MS = 1000
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
        reply_ttl_s: int,
        lease_s: float,
        max_text_bytes: int,
    ) -> None:
        self._task = task
        self._streams = streams
        self._ledger = ledger
        self._progress = progress
        self._stopping = stopping
        self._lease_s = lease_s
        self._outlet = Outlet(streams=streams, ledger=ledger, progress=progress, reply_ttl_s=reply_ttl_s)
        self._intake = Intake(
            task=task,
            streams=streams,
            outlet=self._outlet,
            ledger=ledger,
            progress=progress,
            max_text_bytes=max_text_bytes,
        )
        self._look_ahead = LookAhead(batch_tokens)
        self._rows_per_job = 1 if task.name == "embed" else MAX_ROWS_PER_JOB
        self._took_over_at = float("-inf")

    def run(self) -> None:
        """Work until `stopping` is set; then finish the batch in hand and hand the rest back."""
        failures = 0
        while not self._stopping.is_set():
            try:
                self._begin()
                while not self._stopping.is_set():
                    self._step()
                    failures = 0
            except (RedisError, OSError) as error:
                wait_s = _BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)]
                failures += 1
                logger.warning("Redis does not serve, trying again in %.1f s: %s", wait_s, error)
                self._stopping.wait(wait_s)
        self._hand_back()

    def _begin(self) -> None:
        """Start from what Redis says is ours: what memory holds may have been taken over meanwhile."""
        self._ledger.clear()
        self._look_ahead.clear()
        self._streams.prepare()
        self._admit(self._streams.read_own(self._room(LOOK_AHEAD_ROWS)))

    def _step(self) -> None:
        now = time.monotonic()
        if now - self._took_over_at >= self._lease_s / 4:
            self._took_over_at = now
            self._admit(self._streams.take_over(int(self._lease_s * 1000), self._room(LOOK_AHEAD_ROWS)))
        self._admit(self._read())
        self._progress.tick()
        batch = self._look_ahead.next_batch()
        if batch:
            self._outlet.finish(self._run_batch(batch))
            self._progress.tick()

    def _read(self) -> list[Entry]:
        entries = self._streams.read_new(self._room(READ_ROWS))
        if not entries and not len(self._look_ahead):
            entries = self._streams.wait_new(_BLOCK_MS)
        return entries

    def _room(self, at_most: int) -> dict[Lane, int]:
        """How many jobs of each lane may be taken in now."""
        rows = {lane: min(at_most, LOOK_AHEAD_ROWS - self._look_ahead.count(lane)) for lane in Lane}
        return {lane: -(-max(0, free) // self._rows_per_job) for lane, free in rows.items()}

    def _admit(self, entries: Sequence[Entry]) -> None:
        for row in self._intake.admit(entries):
            self._look_ahead.add(row)

    def _run_batch(self, batch: Sequence[QueuedRow]) -> list[tuple[QueuedRow, Reply]]:
        """Run rows as one batch; if that fails, each alone, so that a bad row fails nobody else."""
        started = time.monotonic()
        try:
            replies = self._task.run([queued.row for queued in batch])
        except Exception as error:  # noqa: BLE001 - a model may raise anything, and the worker must live
            if len(batch) > 1:
                return [outcome for queued in batch for outcome in self._run_batch([queued])]
            logger.warning("a row of %d tokens failed: %s", batch[0].tokens, type(error).__name__)
            return [(batch[0], self._outlet.failure(error))]
        self._progress.count(
            rows=len(batch),
            batches=1,
            tokens=sum(queued.tokens for queued in batch),
            text_bytes=sum(len(queued.row.text.encode()) for queued in batch),
            busy_ms=max(1, round((time.monotonic() - started) * 1000)),
        )
        return list(zip(batch, replies, strict=True))

    def _hand_back(self) -> None:
        """Let others take over at once what was read but not run."""
        try:
            for lane in Lane:
                if entry_ids := self._ledger.entry_ids(lane):
                    self._streams.hand_back(lane, entry_ids)
        except (RedisError, OSError) as error:
            logger.warning("jobs in hand could not be handed back, their lease will end: %s", error)
