"""What a collection's metadata says of its vectors: whose they are, of which texts, and whether they are all there."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

State = Literal["filling", "complete"]

_KEY = "headrace"
_TYPES: Mapping[str, type] = {"dimension": int, "previous": dict, "partial": bool, "rejected": int}
"""Of what is no string; anybody who may write to the store may write anything."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Written by a re-embedding into the metadata of a collection (Qdrant 1.16 and on), read by searches and `switch`.

    `run` identifies the run that fills it. `alias` is what the source was called, if that is an alias: the one to
    switch; `replaces` is the collection that it pointed at then, which was read. `previous` tells of each alias that
    was switched to this collection where it pointed before. `partial` says that the run took a part of its source
    only, `rejected` how many records it could not embed.
    """

    model: str
    tag: str
    dimension: int
    kind: str
    template: str
    source: str
    state: State
    run: str = ""
    alias: str = ""
    replaces: str = ""
    previous: Mapping[str, str] = field(default_factory=dict, hash=False)
    partial: bool = False
    rejected: int = 0

    def as_metadata(self) -> dict[str, Any]:
        """The metadata of the collection, to be merged into what is there."""
        return {_KEY: dataclasses.asdict(self)}

    @classmethod
    def read(cls, metadata: Any) -> Self | None:
        """Read a collection's metadata; None where no re-embedding of this release wrote it."""
        values = metadata.get(_KEY) if isinstance(metadata, dict) else None
        if not isinstance(values, dict):
            return None
        names = {known.name for known in dataclasses.fields(cls)}
        told = {name: value for name, value in values.items() if name in names}
        if not all(type(value) is _TYPES.get(name, str) for name, value in told.items()):
            return None
        try:
            return cls(**told)
        except TypeError:
            return None
