"""A stream entry as a worker reads it, and what of it ends together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from producer.wire.keys import Lane
from producer.wire.messages import EntrySize


@dataclass(kw_only=True)
class Entry:
    """One stream entry as it was read; `attempts` is how often a worker began it before."""

    lane: Lane
    id: bytes
    fields: Mapping[bytes, bytes] = field(repr=False)
    attempts: int = 0
    expires_at_ms: float = float("inf")
    """Redis server time at which its budget ends, once it is decoded."""

    @property
    def created_at_ms(self) -> int:
        """Redis server time at which it was added."""
        return int(self.id.split(b"-")[0])

    @cached_property
    def size(self) -> EntrySize:
        """What it counts on its lane, just as the script counted that added it."""
        return EntrySize(
            id=self.id,
            rows=max(0, len(self.fields) - 1),
            size_bytes=sum(len(value) for value in self.fields.values()),
        )


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Rows of one lane that are answered, and the entries that have no row left."""

    lane: Lane
    digests: Sequence[bytes]
    done: Sequence[EntrySize]
