"""Which entries a worker has in hand, and which of their rows are still open. Pure; safe to read from a thread."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from producer.wire.keys import Lane
from producer.wire.messages import EntrySize


@dataclass
class _Held:
    """An entry in hand: what it counts on its lane, its open rows, and how often a worker began it before."""

    size: EntrySize
    rows: set[bytes]
    attempts: int


class Ledger:
    """Entries from the moment they are read until they are ended, dropped, handed back or read again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Lane, dict[bytes, _Held]] = {lane: {} for lane in Lane}
        self.forfeited = False
        """Set when the leases have ended unrenewed: the entries may be somebody else's by now."""

    def open(self, lane: Lane, size: EntrySize, digests: Iterable[bytes], *, attempts: int = 0) -> None:
        """Take an entry in hand with the rows that must be computed."""
        with self._lock:
            self._held[lane][size.id] = _Held(size=size, rows=set(digests), attempts=attempts)

    def holds(self, lane: Lane, entry_id: bytes) -> bool:
        """Whether the entry is in hand: a second reading of it changes nothing."""
        return entry_id in self._held[lane]

    def ended_by(self, lane: Lane, rows: Iterable[tuple[bytes, bytes]]) -> list[EntrySize]:
        """The entries in hand that have no open row left but these (entry id and digest)."""
        closing = _by_entry(rows)
        with self._lock:
            held = [(self._held[lane].get(entry_id), digests) for entry_id, digests in closing.items()]
            return [one.size for one, digests in held if one is not None and one.rows <= digests]

    def close(self, lane: Lane, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Close rows (entry id and digest), and let go of the entries that have none left."""
        with self._lock:
            for entry_id, digests in _by_entry(rows).items():
                if held := self._held[lane].get(entry_id):
                    held.rows -= digests
                    if not held.rows:
                        del self._held[lane][entry_id]

    def drop(self, lane: Lane, entry_id: bytes) -> None:
        """Forget an entry that somebody else has ended."""
        with self._lock:
            self._held[lane].pop(entry_id, None)

    def open_digests(self, lane: Lane, entry_id: bytes) -> list[bytes]:
        """The rows of an entry that are still open; none if it is not in hand."""
        with self._lock:
            held = self._held[lane].get(entry_id)
            return list(held.rows) if held else []

    def size(self, lane: Lane, entry_id: bytes) -> EntrySize | None:
        """What an entry in hand counts on its lane."""
        held = self._held[lane].get(entry_id)
        return held.size if held else None

    def attempts(self, lane: Lane, entry_id: bytes) -> int:
        """How often a worker began the entry and did not end it; 0 for a fresh one."""
        held = self._held[lane].get(entry_id)
        return held.attempts if held else 0

    def set_attempts(self, lane: Lane, entry_id: bytes, attempts: int) -> None:
        """Correct that number, when the row that it was about is done."""
        with self._lock:
            if held := self._held[lane].get(entry_id):
                held.attempts = attempts

    def entry_ids(self, lane: Lane) -> list[bytes]:
        """The entries in hand, oldest first."""
        with self._lock:
            return list(self._held[lane])

    @property
    def open_rows(self) -> int:
        """How many rows are in hand."""
        with self._lock:
            return sum(len(held.rows) for entries in self._held.values() for held in entries.values())

    def drain(self) -> dict[tuple[Lane, bytes], int]:
        """Forget all entries, which are handed back or read again; return the attempts of each."""
        with self._lock:
            attempts = {(lane, id_): held.attempts for lane in Lane for id_, held in self._held[lane].items()}
            for entries in self._held.values():
                entries.clear()
            self.forfeited = False
            return attempts


def _by_entry(rows: Iterable[tuple[bytes, bytes]]) -> dict[bytes, set[bytes]]:
    by_entry: dict[bytes, set[bytes]] = {}
    for entry_id, digest in rows:
        by_entry.setdefault(entry_id, set()).add(digest)
    return by_entry
