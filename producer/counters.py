"""Counts cache hits and misses in the client, and sends them now and then with a command that goes anyway."""

import threading
from collections.abc import Callable
from typing import Any

from producer.wire.keys import QueueKeys

_INTERVAL_S = 5.0


class Counters:
    """Sums for the `stats` keys. Safe to use from many threads."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sums: dict[tuple[str, str], int] = {}
        self._sent_at = clock()

    def add(self, queue: QueueKeys, hits: int, misses: int) -> None:
        with self._lock:
            if hits:
                self._raise(queue.stats, "hits", hits)
            if misses:
                self._raise(queue.stats, "misses", misses)

    def _raise(self, key: str, field: str, count: int) -> None:
        self._sums[key, field] = self._sums.get((key, field), 0) + count

    def take_due(self, *, force: bool = False) -> dict[tuple[str, str], int]:
        """Return and forget the sums, if it is time; they are lost if the write fails, and that is all right."""
        with self._lock:
            if not self._sums or not (force or self._clock() - self._sent_at >= _INTERVAL_S):
                return {}
            due, self._sums, self._sent_at = self._sums, {}, self._clock()
            return due

    @staticmethod
    def write(pipeline: Any, due: dict[tuple[str, str], int]) -> None:
        """Put the sums on a pipeline, sync or async."""
        for (key, field), count in due.items():
            pipeline.hincrby(key, field, count)
