"""Which entries a worker has in hand, and which of their rows are still open. Pure; safe to read from a thread."""

import threading
from collections.abc import Iterable

from producer.wire.keys import Lane


class Ledger:
    """Entries from the moment they are read until they are acknowledged or handed back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Lane, dict[bytes, set[bytes]]] = {lane: {} for lane in Lane}

    def open(self, lane: Lane, entry_id: bytes, digests: Iterable[bytes]) -> None:
        """Take an entry in hand with the rows that must be computed."""
        with self._lock:
            self._open[lane][entry_id] = set(digests)

    def holds(self, lane: Lane, entry_id: bytes) -> bool:
        """Whether the entry is in hand: a second reading of it changes nothing."""
        return entry_id in self._open[lane]

    def close_row(self, lane: Lane, entry_id: bytes, digest: bytes) -> bool:
        """Close one row; True if it was the entry's last, which then is no longer in hand."""
        with self._lock:
            rows = self._open[lane].get(entry_id)
            if rows is None:
                return False
            rows.discard(digest)
            if not rows:
                del self._open[lane][entry_id]
            return not rows

    def entry_ids(self, lane: Lane) -> list[bytes]:
        """The entries in hand, oldest first."""
        with self._lock:
            return list(self._open[lane])

    @property
    def open_rows(self) -> int:
        """How many rows are in hand."""
        with self._lock:
            return sum(len(rows) for entries in self._open.values() for rows in entries.values())

    def clear(self) -> None:
        """Forget all entries: they are handed back, or will be read again."""
        with self._lock:
            for entries in self._open.values():
                entries.clear()
