"""Makes a record of an object's fields, if they say which record it is."""

from collections.abc import Mapping
from typing import Any

from producer.bulk.ends import Json, Record, Spoilt
from producer.templates import look_up


def record_of(fields: Mapping[str, Any], id_field: str, *, position: Json, place: str) -> Record | Spoilt:
    """The record with these fields, or why it is none: its identity must be a string or a whole number."""
    identity = look_up(fields, id_field)
    if isinstance(identity, str | int) and not isinstance(identity, bool):
        if isinstance(identity, int) or _is_unicode(identity):
            return Record(id=identity, fields=fields, position=position, place=place)
        reason = f"has a field {id_field!r} that is not Unicode"
    elif identity is None:
        reason = f"has no field {id_field!r}"
    else:
        reason = f"has a field {id_field!r} that is neither a string nor a whole number"
    return Spoilt(reason=reason, position=position, place=place)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
