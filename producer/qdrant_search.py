"""What a search says to Qdrant and reads out of its answers, for the sync and the async store, without I/O."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from producer.errors import ConfigurationError, InvalidRequest, StoreUnavailable
from producer.provenance import Provenance
from producer.qdrant import store_errors
from producer.results import Vector

PointId = str | int
UserId = str | int
Payload = Mapping[str, Any]

NO_COLLECTION = "no_such_collection"
_NOT_FOUND = re.compile(r"Collection .* not found", re.DOTALL)
_LONGEST_INTEGER = 2**63


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A collection under its own name, never an alias: what its vectors are, and whose, if that is written there."""

    name: str
    dimension: int
    vector_name: str = ""
    provenance: Provenance | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A point that the vector search found, with its score as the store gives it."""

    id: PointId
    payload: Payload
    score: float


@contextmanager
def collection_errors(place: str, collection: str) -> Iterator[None]:
    """Tell that a collection is not there from all else that the store may say."""
    gone = StoreUnavailable(f"there is no collection {collection!r} in {place or 'the store'}", code=NO_COLLECTION)
    try:
        with store_errors(place or "the store"):
            yield
    except StoreUnavailable as error:
        cause = error.__cause__
        if getattr(cause, "status_code", None) == 404 or _NOT_FOUND.fullmatch(str(cause)):
            raise gone from cause
        raise
    except KeyError as error:  # of the embedded engine, if the collection goes while it looks
        raise gone from error


def check_field(user_field: str) -> None:
    """Refuse a field without a name: it tells users apart."""
    if not user_field:
        raise ConfigurationError("user_field must name the payload field that says whose a point is")


def check_open(closed: bool) -> None:
    """Refuse a store that was closed."""
    if closed:
        raise InvalidRequest("the store is closed: make a new one", code="closed")


def resolved(name: str, listed: Any) -> str:
    """The collection that an alias stands for; any other name is a collection's own."""
    return next((alias.collection_name for alias in listed.aliases if alias.alias_name == name), name)


def described(name: str, info: Any) -> Collection:
    """What a collection is, by the store's own account."""
    vectors: Any = info.config.params.vectors
    vector_name = ""
    if isinstance(vectors, dict):
        if len(vectors) != 1:
            raise ConfigurationError(f"collection {name!r} has {len(vectors)} vectors a point: a search wants one")
        ((vector_name, vectors),) = vectors.items()
    if vectors is None:
        raise ConfigurationError(f"collection {name!r} has no dense vectors")
    provenance = Provenance.read(getattr(info.config, "metadata", None))
    return Collection(name=name, dimension=int(vectors.size), vector_name=vector_name, provenance=provenance)


def query_arguments(collection: Collection, vector: Vector, condition: Any, limit: int) -> dict[str, Any]:
    """The arguments of `query_points`."""
    using = {"using": collection.vector_name} if collection.vector_name else {}
    return {
        "collection_name": collection.name,
        "query": vector.tolist(),
        "query_filter": condition,
        "limit": limit,
        "with_payload": True,
        **using,
    }


def retrieve_arguments(collection: Collection, ids: Sequence[PointId]) -> dict[str, Any]:
    """The arguments of `retrieve`. An embedded store goes through all its points for whatever has conditions."""
    return {"collection_name": collection.name, "ids": list(ids), "with_payload": True}


def of_user(user_field: str, user_id: UserId) -> Any:
    """The filter of a user's points."""
    from qdrant_client import models  # noqa: PLC0415 - only who uses the store loads its client

    forms = [models.MatchValue(value=form) for form in _forms(user_id)]
    return models.Filter(should=[models.FieldCondition(key=user_field, match=form) for form in forms])


def _is_of_user(payload: Payload, user_field: str, user_id: UserId) -> bool:
    """What `of_user` finds, for one point: dots lead into objects, "[]" into lists; one value of a list is enough."""
    values: list[Any] = [payload]
    for step in user_field.split("."):
        name = step.removesuffix("[]")
        values = [value[name] for value in values if isinstance(value, Mapping) and name in value]
        if step != name:
            values = [one for value in values if isinstance(value, list) for one in value]
    flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return any(type(one) is type(form) and one == form for one in flat for form in _forms(user_id))


def _forms(user_id: UserId) -> list[UserId]:
    """How a payload may hold the user's id: one of digits is a number or a string."""
    text = str(user_id)
    try:
        number = int(text)
    except ValueError:
        return [text]
    return [text, number] if str(number) == text and -_LONGEST_INTEGER <= number < _LONGEST_INTEGER else [text]


def candidates(response: Any) -> list[Candidate]:
    """Read what `query_points` answers."""
    return [
        Candidate(id=_point_id(point.id), payload=point.payload or {}, score=float(point.score))
        for point in response.points
    ]


def payloads(points: Any, user_field: str, user_id: UserId) -> dict[PointId, Payload]:
    """Read what `retrieve` answers, but for points that are not the user's."""
    found = {_point_id(point.id): point.payload or {} for point in points}
    return {point: payload for point, payload in found.items() if _is_of_user(payload, user_field, user_id)}


def _point_id(value: Any) -> PointId:
    return value if isinstance(value, int) else str(value)
