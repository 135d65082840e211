"""Takes entries in hand just in time: bulk while the model runs, interactive rows at the last moment.

Whoever is free first should have an interactive row, so no worker holds any while its model is busy, unless there is a
backlog of them. What is read ahead is bounded in rows and in tokens: it is enough to sort by length, and little enough
to leave the other workers their share of a burst.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from producer.wire.keys import Lane
from workers.batching import LookAhead, QueuedRow
from workers.entries import Entry
from workers.intake import Intake
from workers.streams import Streams

LOOK_AHEAD_ROWS = 64
"""Rows of each lane that one worker holds at most, or one job more."""

_LOOK_AHEAD_BATCHES = 4
"""As many batches of tokens of each lane it holds, about."""

READ_ROWS = 2
"""Rows of each lane that a reading takes at first, so that idle workers share a burst; twice as many after each reading
that found as many as it asked for, and little text in them."""

_LITTLE_BYTES = 256 * 1024
"""Somebody may put anything on a lane, and what one reading brings is in memory at once."""

_BLOCK_MS = 700
"""How long a reading waits; not a whole second, at whose end whoever asks once a second would find the worker busy."""

_SMOOTHING = 0.1
_FIRST_GUESS_TOKENS = 64.0


class Reader:
    """Fills the look-ahead. Only `ahead` uses a second thread, and only while its block lasts."""

    def __init__(self, *, streams: Streams, intake: Intake, look_ahead: LookAhead, rows_per_job: int) -> None:
        self._streams = streams
        self._intake = intake
        self._look_ahead = look_ahead
        self._rows_per_job = rows_per_job
        self._row_tokens = _FIRST_GUESS_TOKENS
        self._most_rows = dict.fromkeys(Lane, READ_ROWS)
        self._coming_rows = dict.fromkeys(Lane, 0)
        """What a reading that is under way may bring."""

        self._beside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="headrace-reader")

    def next_batch(self) -> list[QueuedRow]:
        """Return the next batch; if nothing is in hand, wait for entries, less than a second."""
        if not len(self._look_ahead):
            count = min(self._jobs(list(Lane)).values())
            self.admit(self._streams.wait_new(_BLOCK_MS, count), dict.fromkeys(Lane, count))
        return self._look_ahead.next_batch()

    def admit(self, entries: Sequence[Entry], asked: Mapping[Lane, int] | None = None) -> None:
        """Take entries in hand; `asked` is how many of each lane were asked for, if these come from its head."""
        if asked:
            self._note_backlog(entries, asked)
        self._add(self._intake.admit(entries))

    def room(self) -> dict[Lane, int]:
        """About how many rows of each lane may be taken in now."""
        return {lane: self._room(lane) for lane in Lane}

    def jobs_wanted(self, *, read_ahead: bool) -> dict[Lane, int]:
        """How many jobs of each lane to ask for at the end of a batch; bulk only if nothing was read ahead."""
        return self._jobs([Lane.INTERACTIVE] if read_ahead else list(Lane))

    @contextmanager
    def ahead(self, wanted: bool) -> Iterator[None]:
        """Read, decode and tokenise in a thread of its own while the block runs the model."""
        if not wanted:
            yield
            return
        backlog = self._most_rows[Lane.INTERACTIVE] > READ_ROWS
        asked = self._jobs(list(Lane) if backlog else [Lane.BULK])
        self._coming_rows.update({lane: jobs * self._rows_per_job for lane, jobs in asked.items()})
        reading = self._beside.submit(self._read, asked)
        try:
            yield
        except BaseException:
            with suppress(Exception):  # the trouble in hand is told, not the one beside it
                reading.result()
            raise
        finally:
            self._coming_rows = dict.fromkeys(Lane, 0)
        self._end(reading, asked)

    def close(self) -> None:
        """End the thread."""
        self._beside.shutdown()

    def _end(self, reading: "Future[tuple[list[Entry], list[QueuedRow]]]", asked: Mapping[Lane, int]) -> None:
        entries, rows = reading.result()
        self._note_backlog(entries, asked)
        self._add(rows)

    def _read(self, asked: Mapping[Lane, int]) -> tuple[list[Entry], list[QueuedRow]]:
        entries = self._streams.read_new(asked)
        return entries, self._intake.admit(entries)

    def _add(self, rows: Sequence[QueuedRow]) -> None:
        for row in rows:
            self._look_ahead.add(row)
            self._row_tokens += (row.tokens - self._row_tokens) * _SMOOTHING

    def _note_backlog(self, entries: Sequence[Entry], asked: Mapping[Lane, int]) -> None:
        """More entries are waiting on a lane if as many came as were asked for."""
        for lane, count in asked.items():
            came = [entry for entry in entries if entry.lane is lane]
            more = len(came) >= count and sum(entry.size.size_bytes for entry in came) <= _LITTLE_BYTES
            self._most_rows[lane] = min(LOOK_AHEAD_ROWS, 2 * self._most_rows[lane]) if more else READ_ROWS

    def _jobs(self, lanes: Sequence[Lane]) -> dict[Lane, int]:
        rooms = {lane: min(self._most_rows[lane], self._room(lane)) for lane in lanes}
        return {lane: -(-rows // self._rows_per_job) for lane, rows in rooms.items() if rows}

    def _room(self, lane: Lane) -> int:
        """At least one where none is held: of those that may come, none may come."""
        held, coming_rows = self._look_ahead, self._coming_rows[lane]
        rows = LOOK_AHEAD_ROWS - held.count(lane) - coming_rows
        tokens = _LOOK_AHEAD_BATCHES * held.budgets[lane] - held.tokens(lane) - coming_rows * self._row_tokens
        return max(0 if held.count(lane) else 1, min(rows, int(tokens / max(1.0, self._row_tokens))))
