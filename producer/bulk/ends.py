"""What a run reads from and writes to: the protocols of sources and sinks, and what travels between them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from producer.bulk.conditions import Conditions
from producer.results import Vector

Json = Any
"""What `json.dumps` takes: a position in a source, a mark of a sink."""

Embed = Callable[[Sequence[str]], Vector]
"""Embeds texts through the queue: float32, shape (n, dimension)."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One record of a source: its identity in its collection, its fields, and where the source goes on after it."""

    id: str | int
    fields: Mapping[str, Any]
    position: Json
    place: str
    """For messages: "contacts.jsonl line 7"."""


@dataclass(frozen=True, kw_only=True)
class Spoilt:
    """What a source has where a record should be, though it can go on: not an object, or without an identity."""

    reason: str
    """What comes after the place: "has no field 'id'"."""

    position: Json
    place: str
    damaged: bool = False
    """The source itself is damaged there: a run goes on only if it was told how many rows may fail."""


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """A record with its text as it was sent, and its vector: float32, shape (dimension,)."""

    record: Record
    text: str
    vector: Vector


@dataclass(frozen=True, kw_only=True)
class Space:
    """What the vectors of a run are: whose, how long, and of which texts."""

    model: str
    tag: str
    dimension: int
    kind: str
    template: str
    source: str
    """The source's name."""

    run: str
    """What identifies the run."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What a run has written and set aside, over all its starts. `where` and `limit` made it a part of the data."""

    rows: int
    rejected: int
    partial: bool
    unique_ids: bool
    """Whether the source cannot hold one identity twice."""


class Source(Protocol):
    """Where records come from. Its constructor opens nothing."""

    name: str
    """As the user wrote it, without secrets; made absolute where it is a path."""

    unique_ids: bool

    def check(self) -> None:
        """Open it and look: raise ConfigurationError with one clear line if it cannot be read."""

    def fingerprint(self) -> Json:
        """What changes when the source does, so that a run goes on only with what it began with; None: no telling."""

    def usual_template(self) -> str:
        """The template by which its texts were made before, if it says so; else ""."""

    def count(self, where: Conditions) -> int | None:
        """How many records fit the conditions, if that is cheap to tell."""

    def records(self, where: Conditions, after: Json = None) -> Iterator[Record | Spoilt]:
        """Yield the records that fit, in an order that is always the same, after a position.

        Raises:
            ConfigurationError: it cannot be read, or stops in the middle (a truncated file).
            InvalidRequest: it is not what it claims to be, from somewhere on (`bad_record`).
        """

    def close(self) -> None:
        """Let go of files and connections."""


class Sink(Protocol):
    """Where vectors go. Its constructor opens nothing; nothing of it is visible to readers before `finish`."""

    name: str
    """As the user wrote it, without secrets; made absolute where it is a path."""

    ordered: bool
    """Whether rows must come in the order of the source, also from one that holds each identity once."""

    resumable: bool
    """Whether a later start can go on from a mark."""

    def check(self, space: Space, *, resuming: bool, overwrite: bool) -> None:
        """Look without changing anything: raise ConfigurationError if it is there already (and neither resuming nor
        overwrite), cannot be written, or has another dimension."""

    def begin(self, space: Space, mark: Json = None) -> None:
        """Make it ready for rows: anew (what an abandoned run left of it goes), or as it was at a mark."""

    def write(self, rows: Sequence[Embedded]) -> Json:
        """Write rows; durable when it returns. Writing a row again changes nothing. The answer is the new mark."""

    def finish(self, totals: Totals, embed: Embed) -> str:
        """Check what can be checked, make it visible, and tell in a few words what was checked ("" if nothing).

        Raises:
            VerificationFailed: it does not hold what it should; it stays as it is, and invisible.
        """

    def close(self) -> None:
        """Let go of files and connections; without `finish` it can be taken up again at the last mark."""
