"""Which part of the data a run takes: fields that must have a value, `user_id=42`, all of them at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from producer.errors import ConfigurationError
from producer.templates import look_up


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Pairs of a field and its value as text; none of them fit every record."""

    pairs: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, texts: Sequence[str]) -> "Conditions":
        """Read `FIELD=VALUE` texts.

        Raises:
            ConfigurationError: one has no field or no "=".
        """
        pairs = []
        for text in texts:
            field, equals, value = text.partition("=")
            if not (field.strip() and equals):
                raise ConfigurationError(f"{text!r} is no condition: write FIELD=VALUE, such as user_id=42")
            pairs.append((field.strip(), value))
        return cls(pairs=tuple(pairs))

    def __bool__(self) -> bool:
        return bool(self.pairs)

    def fit(self, fields: Mapping[str, Any]) -> bool:
        """Whether a record has all the values; a list has a value if one of its parts is it."""
        return all(_has(look_up(fields, field), value) for field, value in self.pairs)


def _has(found: Any, value: str) -> bool:
    if isinstance(found, list | tuple):
        return any(_has(part, value) for part in found)
    if isinstance(found, bool):
        return value.lower() == str(found).lower()
    return found is not None and str(found) == value
