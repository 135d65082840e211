"""Routes hints to the calls that wait for them. Shared by both listeners.

A hint is a pub/sub message: the digests of rows that are ready, 16 bytes each, one after the other. One that is
lost costs its caller a re-check, never a result.
"""

import threading
from collections.abc import Iterable
from typing import Protocol

from producer.wire.keys import DIGEST_BYTES


class Mailbox(Protocol):
    """Where the hints for one call arrive."""

    def deliver(self, digest: bytes) -> None: ...


class Switchboard:
    """Which mailbox watches which rows. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watchers: dict[bytes, set[Mailbox]] = {}
        self._watched: dict[Mailbox, set[bytes]] = {}

    def watch(self, mailbox: Mailbox, digests: Iterable[bytes]) -> None:
        """Deliver hints for these rows to the mailbox from now on."""
        with self._lock:
            for digest in digests:
                self._watchers.setdefault(digest, set()).add(mailbox)
                self._watched.setdefault(mailbox, set()).add(digest)

    def unwatch(self, mailbox: Mailbox, digests: Iterable[bytes] | None = None) -> None:
        """End the delivery of hints for these rows, or of all, to the mailbox."""
        if mailbox not in self._watched:  # only the call that owns the mailbox adds to it
            return
        with self._lock:
            watched = self._watched.get(mailbox, set())
            for digest in list(watched if digests is None else digests):
                self._forget(mailbox, digest)
                watched.discard(digest)
            if not watched:
                self._watched.pop(mailbox, None)

    def deliver(self, hint: bytes) -> None:
        """Hand each digest of a hint to those who watch it. A row is ready once: its watch ends here."""
        with self._lock:
            for first in range(0, len(hint), DIGEST_BYTES):
                digest = hint[first : first + DIGEST_BYTES]
                for mailbox in list(self._watchers.get(digest, ())):
                    mailbox.deliver(digest)
                    self._forget(mailbox, digest)
                    self._watched.get(mailbox, set()).discard(digest)

    def _forget(self, mailbox: Mailbox, digest: bytes) -> None:
        watchers = self._watchers.get(digest, set())
        watchers.discard(mailbox)
        if not watchers:
            self._watchers.pop(digest, None)
