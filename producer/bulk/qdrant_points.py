"""Makes points of Qdrant out of embedded records: ids that are always the same, payloads that every server takes."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from producer.bulk.ends import Embedded

if TYPE_CHECKING:
    from qdrant_client.http import models

_NAMESPACE = UUID("6f4b3c1e-9d2a-5e87-8c40-2b7d1a9e5f36")
"""Fixed for ever: another one would write every point a second time."""

_POINTS_OF_A_REQUEST = 128
_BYTES_OF_A_REQUEST = 8 * 1024 * 1024
"""A server takes 32 MiB, unless it is set up otherwise."""

_BYTES_OF_A_NUMBER = 22
"""A float32 as JSON, at most."""

_LARGEST_ID = 2**64 - 1
_INTEGERS = range(-(2**63), 2**64)


def point_of(row: Embedded) -> "models.PointStruct":
    """The point of a row: all its fields are the payload."""
    from qdrant_client.http import models  # noqa: PLC0415 - only who uses the store loads its client

    return models.PointStruct(
        id=point_id(row.record.id), vector=row.vector.tolist(), payload=_plain_fields(row.record.fields)
    )


def point_id(identity: str | int) -> str | int:
    """The id of a record's point: its own if Qdrant can have it (a whole number, a UUID), else a UUID made of it."""
    if isinstance(identity, int) and not isinstance(identity, bool) and 0 <= identity <= _LARGEST_ID:
        return identity
    if isinstance(identity, str):
        try:
            return str(UUID(identity))
        except ValueError:
            pass
    return str(uuid5(_NAMESPACE, json.dumps(identity)))


def requests_of(rows: Iterable[Embedded]) -> "Iterator[list[models.PointStruct]]":
    """The points of rows, in portions that a server takes at once; of two with one id the later one wins."""
    points: dict[Any, models.PointStruct] = {}
    size = 0
    for row in rows:
        point = point_of(row)
        more = len(json.dumps(point.payload)) + len(row.vector) * _BYTES_OF_A_NUMBER
        if points and (len(points) >= _POINTS_OF_A_REQUEST or size + more > _BYTES_OF_A_REQUEST):
            yield list(points.values())
            points, size = {}, 0
        points[point.id] = point
        size += more
    if points:
        yield list(points.values())


def _plain_fields(fields: Mapping[Any, Any]) -> dict[str, Any]:
    return {_encodable(str(name)): _plain(value) for name, value in fields.items()}


def _plain(value: Any) -> Any:
    """A value as JSON has it; whatever JSON has not (dates, NaN, huge numbers) as text, as templates show it."""
    if isinstance(value, Mapping):
        return _plain_fields(value)
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, bool) or _is_number(value):
        return value
    return _encodable(str(value))


def _is_number(value: Any) -> bool:
    return (type(value) is int and value in _INTEGERS) or (type(value) is float and math.isfinite(value))


def _encodable(text: str) -> str:
    """The text without lone surrogates, which no server takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
