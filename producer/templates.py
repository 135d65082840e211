"""Builds one text out of a record's fields: `{name} - {company} - {notes[:500]}`, by lookup alone, never by eval."""

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from producer.errors import ConfigurationError

_FIELD = re.compile(r"(?P<path>[^\[\]{}!:]+?)(?:\[:(?P<length>[0-9]{1,9})\])?")


@dataclass(frozen=True, kw_only=True)
class _Slot:
    """A field of a template: its path (dots lead into objects), its longest value in characters, what is before it."""

    before: str
    path: str
    length: int | None


class TextTemplate:
    """A template: text with fields in braces; `{notes[:500]}` is cut, `{address.city}` looks into an object.

    What stands between two fields is written only where both have a value, so that a record without notes does not
    end in a dash. Doubled braces are braces.
    """

    def __init__(self, pattern: str) -> None:
        """Read the pattern.

        Raises:
            ConfigurationError: it has no field, or something in braces that is no field; or it is not valid Unicode.
        """
        try:
            pattern.encode()
        except UnicodeEncodeError:
            raise ConfigurationError(f"the template {pattern!r} is not text in UTF-8") from None
        self.pattern = pattern
        self._slots, self._tail = _parse(pattern)

    @classmethod
    def of_fields(cls, fields: Sequence[str]) -> "TextTemplate":
        """The values of these fields, with a space between them."""
        return cls(" ".join(f"{{{field}}}" for field in fields))

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields it names, each once, in order."""
        return tuple(dict.fromkeys(slot.path for slot in self._slots))

    @property
    def sole_field(self) -> str | None:
        """The field, if the template is nothing but one: then its value is the text, and must be one."""
        (slot, *others) = self._slots
        plain = not (others or slot.before or self._tail) and slot.length is None
        return slot.path if plain else None

    def render(self, record: Mapping[str, Any]) -> str:
        """Build the text; empty if no field has a value."""
        text = ""
        for slot in self._slots:
            value = _shown(look_up(record, slot.path))[: slot.length]
            if value:
                text += (slot.before if text or slot is self._slots[0] else "") + value
        return text + self._tail if text else ""


def look_up(record: Mapping[str, Any], path: str) -> Any:
    """The value of a field: by its whole name, or along its dots into objects; None if there is none."""
    if path in record:
        return record[path]
    value: Any = record
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _parse(pattern: str) -> tuple[list[_Slot], str]:
    slots, before = [], ""
    try:
        for literal, field, spec, conversion in string.Formatter().parse(pattern):
            before += literal
            if field is None:
                continue
            found = _FIELD.fullmatch(field.strip())
            if not found or spec or conversion:
                written = field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
                raise ConfigurationError(
                    f"{{{written}}} in the template {pattern!r} is no field: write {{name}}, {{notes[:500]}} or {{a.b}}"
                )
            length = found["length"]
            slots.append(_Slot(before=before, path=found["path"], length=int(length) if length else None))
            before = ""
    except ValueError as error:
        raise ConfigurationError(f"the template {pattern!r} cannot be read: {error}") from None
    if not slots:
        raise ConfigurationError(f"the template {pattern!r} names no field: write fields in braces, such as {{name}}")
    return slots, before


def _shown(value: Any) -> str:
    """A value as text: nothing for None, the parts of a list with commas between them; objects have no text."""
    if value is None or isinstance(value, Mapping):
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_shown, value)))
    if isinstance(value, bool):
        return str(value).lower()
    return str(value).strip()
