"""What a search says to Qdrant and reads out of its answers, for the sync and the async store, without I/O."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
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
_STEP = re.compile(r"""(?:"(?P<quoted>[^"]+)"|(?P<bare>[\w-]+))(?P<each>\[])?(?:\.(?=.)|$)""")
_FORM_OF_INDEX: Mapping[str, type] = {"integer": int, "keyword": str, "uuid": str}


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A collection under its own name, never an alias: what its vectors are, and whose, if that is written there.

    `user_index` is the type of the payload index on the field that says whose a point is; "" if there is none.
    """

    name: str
    dimension: int
    vector_name: str = ""
    user_index: str = ""
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
    """Refuse what is no path to a payload field: it tells users apart."""
    if not user_field:
        raise ConfigurationError("user_field must name the payload field that says whose a point is")
    if not (user_field.isprintable() and _steps(user_field)):
        raise ConfigurationError(
            f"user_field {user_field!r} is no path to a payload field: write user_id, owner.id or teams[].id, with "
            "double quotes around a name of other characters than letters, digits, _ and -"
        )


def check_open(closed: bool) -> None:
    """Refuse a store that was closed."""
    if closed:
        raise InvalidRequest("the store is closed: make a new one", code="closed")


def place_of(client: Any) -> str:
    """Where the application's own client keeps its points, without any password; all stores in memory are one."""
    options = client.init_options
    if options["path"]:
        return str(Path(options["path"]).absolute())
    host = options["host"] and f"{options['host']}:{options['port']}"
    place: str = options["location"] or options["url"] or host or "localhost"
    return place.rpartition("@")[2]


def resolved(name: str, listed: Any) -> str:
    """The collection that an alias stands for; any other name is a collection's own."""
    return next((alias.collection_name for alias in listed.aliases if alias.alias_name == name), name)


def described(name: str, info: Any, user_field: str) -> Collection:
    """What a collection is, by the store's own account."""
    vectors: Any = info.config.params.vectors
    vector_name = ""
    if isinstance(vectors, dict):
        if len(vectors) != 1:
            raise ConfigurationError(f"collection {name!r} has {len(vectors)} vectors a point: a search wants one")
        ((vector_name, vectors),) = vectors.items()
    if vectors is None:
        raise ConfigurationError(f"collection {name!r} has no dense vectors")
    index = (info.payload_schema or {}).get(user_field)
    return Collection(
        name=name,
        dimension=int(vectors.size),
        vector_name=vector_name,
        user_index=str(index.data_type) if index else "",
        provenance=Provenance.read(getattr(info.config, "metadata", None)),
    )


def query_arguments(
    collection: Collection, vector: Vector, user_field: str, user_id: UserId, limit: int
) -> dict[str, Any]:
    """The arguments of `query_points`."""
    using = {"using": collection.vector_name} if collection.vector_name else {}
    return {
        "collection_name": collection.name,
        "query": vector.tolist(),
        "query_filter": _of_user(user_field, user_id, collection.user_index),
        "limit": limit,
        "with_payload": True,
        **using,
    }


def retrieve_arguments(collection: Collection, ids: Sequence[PointId]) -> dict[str, Any]:
    """The arguments of `retrieve`. An embedded store goes through all its points for whatever has conditions."""
    return {"collection_name": collection.name, "ids": list(ids), "with_payload": True}


def _of_user(user_field: str, user_id: UserId, index: str) -> Any:
    """The filter of a user's points.

    It asks for what the payload index holds alone: of two forms the index could serve one, and then Qdrant uses none
    (`combine_should_estimations` in its query_estimator.rs), or refuses, if it is told to filter by indexes only.
    """
    from qdrant_client import models  # noqa: PLC0415 - only who uses the store loads its client

    forms = _forms(user_id)
    indexed = [form for form in forms if type(form) is _FORM_OF_INDEX.get(index)]
    matches = [models.MatchValue(value=form) for form in indexed or forms]
    return models.Filter(should=[models.FieldCondition(key=user_field, match=match) for match in matches])


def _is_of_user(payload: Payload, user_field: str, user_id: UserId) -> bool:
    """What `_of_user` finds, for one point: dots lead into objects, "[]" into lists; one value of a list is enough."""
    values: list[Any] = [payload]
    for name, each in _steps(user_field):
        values = [value[name] for value in values if isinstance(value, Mapping) and name in value]
        if each:
            values = [one for value in values if isinstance(value, list) for one in value]
    flat = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return any(type(one) is type(form) and one == form for one in flat for form in _forms(user_id))


@lru_cache
def _steps(user_field: str) -> tuple[tuple[str, bool], ...]:
    """The names of a path, and whether each is of a list whose parts are meant; none if it cannot be read."""
    steps: list[tuple[str, bool]] = []
    position = 0
    while position < len(user_field):
        step = _STEP.match(user_field, position)
        if step is None:
            return ()
        steps.append((step["quoted"] or step["bare"], bool(step["each"])))
        position = step.end()
    return tuple(steps)


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
