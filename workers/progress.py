"""What a worker has done and when it last came round; written by the engine, read by the pulse thread."""

import logging
import threading
import time

from workers.vitals import Vitals

logger = logging.getLogger("headrace.worker")


class Progress:
    """Counters since the start, and the moment of the last progress (monotonic seconds)."""

    def __init__(self, vitals: Vitals | None = None) -> None:
        self.vitals = vitals or Vitals()
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._sent: dict[str, int] = {}
        self._warned = False
        self.ticked_at_s = time.monotonic()

    @property
    def rows_done(self) -> int:
        """Rows the model has computed."""
        return self._counts.get("rows", 0)

    def tick(self) -> None:
        """The engine came round: it has read from Redis, or finished a batch."""
        if self.rows_done:
            self.vitals.note_worked()
        self.ticked_at_s = time.monotonic()

    def count(self, **counts: int) -> None:
        """Add to counters by name."""
        with self._lock:
            for name, count in counts.items():
                self._counts[name] = self._counts.get(name, 0) + count

    def count_truncated(self, tokens: int) -> None:
        """Count a text that the model cuts; said once in the log, since a corpus may be full of them."""
        self.count(truncated=1)
        if not self._warned:
            self._warned = True
            logger.warning(
                "texts longer than the model's %d tokens are truncated (said once; `headrace status` counts them)",
                tokens,
            )

    def unsent(self) -> dict[str, int]:
        """What has been counted since `mark_sent`."""
        with self._lock:
            return {
                name: n - self._sent.get(name, 0) for name, n in self._counts.items() if n > self._sent.get(name, 0)
            }

    def mark_sent(self, counts: dict[str, int]) -> None:
        """Remember that these counts have reached Redis."""
        with self._lock:
            for name, count in counts.items():
                self._sent[name] = self._sent.get(name, 0) + count
