"""Turns conditions into a filter that Qdrant applies itself: it lets through at least what fits."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from producer.bulk.conditions import Conditions

if TYPE_CHECKING:
    from qdrant_client.http import models

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_MOST = 2**63


def filter_of(where: Conditions) -> "models.Filter | None":
    """The filter: each pair as a string, and as the number or the boolean that is written so; None for no pairs.

    What Qdrant cannot tell (whole numbers beyond 64 bits) is left out, so the records are to be looked at again.
    """
    from qdrant_client.http import models  # noqa: PLC0415 - only who uses the store loads its client

    required: list[models.Condition] = []
    for field, value in where.pairs:
        matches = list(_matches(value))
        if not matches:
            continue
        likely: list[models.Condition] = [
            models.FieldCondition(key=key, **match) for key in _keys(field) for match in matches
        ]
        required.append(models.Filter(should=likely))
    return models.Filter(must=required) if required else None


def _matches(value: str) -> Iterator[dict[str, Any]]:
    """The conditions on a field that a value written so can have."""
    from qdrant_client.http import models  # noqa: PLC0415 - only who uses the store loads its client

    try:
        whole = int(value)
    except ValueError:
        whole = None
    if whole is not None and not -_MOST <= whole < _MOST:
        return
    yield {"match": models.MatchValue(value=value)}
    if whole is not None:
        yield {"match": models.MatchValue(value=whole)}
    elif value.lower() in {"true", "false"}:
        yield {"match": models.MatchValue(value=value.lower() == "true")}
    elif (number := _float(value)) is not None:
        yield {"range": models.Range(gte=number, lte=number)}


def _float(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if abs(number) < float("inf") else None


def _keys(field: str) -> Iterator[str]:
    """The field as one name and, if it has dots, as a way into objects; what is no bare name is quoted."""
    yield _quoted(field)
    if "." in field:
        yield ".".join(_quoted(part) for part in field.split("."))


def _quoted(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else f'"{name}"'
