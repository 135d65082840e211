"""What a run is asked to do, as plain values: the command line makes one, and a detached job carries one."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self

from producer.bulk.conditions import Conditions
from producer.core import DEFAULT_WINDOW
from producer.errors import ConfigurationError
from producer.requests import text_kind
from producer.templates import TextTemplate

_DEFAULT_TEMPLATE = "{text}"


@dataclass(frozen=True, kw_only=True)
class Order:
    """A re-embedding. `source` and `sink` are URLs or paths, empty where the ends themselves are passed along;
    `template` is a `TextTemplate`'s pattern; empty, it is the one that the source was filled by, or its field `text`.

    `max_failures` is how many rows may fail before the run stops, None a tenth of those read.
    """

    source: str = ""
    sink: str = ""
    template: str = ""
    id_field: str = "id"
    kind: str = "passage"
    where: tuple[str, ...] = ()
    limit: int | None = None
    window: int = DEFAULT_WINDOW
    max_failures: int | None = None
    resume: bool = False
    overwrite: bool = False
    job: str = ""
    """The detached job that carries it: its later attempts go on from what it began itself, whatever else is said."""

    def check(self) -> None:
        """Look whether it can be read at all, which needs neither its ends nor a pool.

        Raises:
            ConfigurationError: a condition or the template cannot be read.
            InvalidRequest: the kind is none.
        """
        text_kind(self.kind)
        Conditions.parse(self.where)
        if self.template:
            TextTemplate(self.template)

    def settled(self, usual_template: str) -> Self:
        """The same with its template, where it has none of its own; `usual_template` is the source's."""
        return dataclasses.replace(self, template=self.template or usual_template or _DEFAULT_TEMPLATE)

    def identity(self, tag: str, *, source_name: str, sink_name: str) -> str:
        """What tells this run from others, whatever its window: 16 hex digits."""
        parts = [tag, source_name, sink_name, self.template, self.id_field, self.kind, *sorted(self.where), self.limit]
        return sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def as_json(self) -> dict[str, Any]:
        """The order for a job's arguments."""
        return {**dataclasses.asdict(self), "where": list(self.where)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `as_json` gave.

        Raises:
            ConfigurationError: the values are those of another release.
        """
        try:
            return cls(**{**values, "where": tuple(values["where"])})
        except (TypeError, KeyError) as error:
            raise ConfigurationError(f"this release cannot read the order of that job ({error})") from error
