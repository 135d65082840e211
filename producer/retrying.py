"""Puts the rows of dead letters on the bulk lane again; a letter goes once the lane has all its rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import redis

from producer.connection import run_script
from producer.settings import ProducerSettings
from producer.wire import scripts
from producer.wire.codec import MAX_BUDGET_MS, is_result
from producer.wire.keys import Lane, QueueKeys, hint_channel
from producer.wire.messages import DeadLetter, Job, JobHeader, Row
from producer.wire.scripts import LaneLimit
from producer.wire.signing import Seal

_ROWS_PER_LOOKUP = 1000

Ask = Callable[[Callable[[redis.Redis], Any]], Any]
Readable = tuple[DeadLetter, Job]


@dataclass(frozen=True, kw_only=True)
class RetryReport:
    """What became of letters that were to be retried. Each counts once; letters that could not be stay.

    `retried` have their rows on a lane again, `already_computed` had all results in the cache: both are gone.
    `unreadable` hold no job that the pool could run, `missing` are ids without a letter. With `lane_full` the bulk
    lane took no more rows, and letters behind were not tried: retry again later.
    """

    retried: int
    already_computed: int
    unreadable: int
    missing: tuple[str, ...]
    lane_full: bool


class Retry:
    """One retry: takes letters by the page, and counts. `ask` runs a command on a client, errors mapped."""

    def __init__(self, queue: QueueKeys, settings: ProducerSettings, ask: Ask) -> None:
        self.lane_full = False
        self._queue = queue
        self._settings = settings
        self._ask = ask
        self._retried = self._already_computed = self._unreadable = 0

    def take(self, letters: Sequence[DeadLetter]) -> None:
        """Retry these letters, until the lane is full."""
        readable = [(letter, letter.job) for letter in letters if letter.job and not letter.unreadable]
        self._unreadable += len(letters) - len(readable)
        cached = self._cached([row.digest for _, job in readable for row in job.rows])
        computed = {letter.id for letter, job in readable if all(row.digest in cached for row in job.rows)}
        self._delete(computed)
        self._already_computed += len(computed)
        for batch in _batches([(letter, job) for letter, job in readable if letter.id not in computed]):
            rows = list({row.digest: row for _, job in batch for row in job.rows if row.digest not in cached}.values())
            accepted = {row.digest for row in rows[: self._enqueue(rows)]} | cached
            done = {letter.id for letter, job in batch if all(row.digest in accepted for row in job.rows)}
            self._delete(done)
            self._retried += len(done)
            if len(done) < len(batch):
                self.lane_full = True
                return

    def report(self, missing: Sequence[str]) -> RetryReport:
        return RetryReport(
            retried=self._retried,
            already_computed=self._already_computed,
            unreadable=self._unreadable,
            missing=tuple(missing),
            lane_full=self.lane_full,
        )

    def _cached(self, digests: Sequence[bytes]) -> set[bytes]:
        """Find rows that somebody has computed since."""
        keys = [self._queue.reply(digest) for digest in digests]
        seal = Seal(self._settings.cache_key)

        def read(client: redis.Redis) -> set[bytes]:
            cached = set()
            for first in range(0, len(keys), _ROWS_PER_LOOKUP):
                values: Any = client.mget(keys[first : first + _ROWS_PER_LOOKUP])
                opened = map(seal.open, keys[first : first + _ROWS_PER_LOOKUP], values)
                cached |= {digests[n] for n, value in enumerate(opened, first) if is_result(value)}
            return cached

        return set(self._ask(read))

    def _enqueue(self, rows: Sequence[Row]) -> int:
        """Put rows of one kind and query on the bulk lane; return how many of them, from the first, it took."""
        call = scripts.enqueue(
            self._queue,
            Lane.BULK,
            JobHeader(kind=rows[0].kind, budget_ms=MAX_BUDGET_MS, query=rows[0].query),
            rows,
            channel=hint_channel("retry", self._settings.namespace),  # nobody listens there
            limit=LaneLimit(rows=self._settings.lane_limit, size_bytes=self._settings.lane_limit_bytes),
        )
        _added, _attached, _queued, handled = self._ask(lambda client: run_script(client, call))
        return int(handled)

    def _delete(self, ids: set[str]) -> None:
        if ids:
            self._ask(lambda client: client.xdel(self._queue.dead, *ids))


def _batches(letters: Sequence[Readable]) -> Iterator[list[Readable]]:
    """Group letters whose rows one script call may carry: of one kind and query, not too many, not too large."""

    def shared(item: Readable) -> tuple[str, str]:
        return item[1].header.kind, item[1].header.query or ""

    for _, group in groupby(sorted(letters, key=shared), key=shared):
        batch: list[Readable] = []
        rows = size_bytes = 0
        for letter, job in group:
            rows, size_bytes = rows + len(job.rows), size_bytes + letter.payload_bytes
            if batch and (rows > scripts.MAX_ROWS_PER_CALL or size_bytes > scripts.MAX_BYTES_PER_CALL):
                yield batch
                batch, rows, size_bytes = [], len(job.rows), letter.payload_bytes
            batch.append((letter, job))
        yield batch
