"""What a search's flow asks of its client: one small class for each kind of effect, like `producer.effects`."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from producer.qdrant_search import Collection, PointId, UserId
from producer.results import Vector
from producer.wire.keys import SearchKeys


@dataclass(frozen=True)
class Locate:
    """Ask the store which collection the name stands for now, and whose vectors it holds. Answer: a `Collection`."""


@dataclass(frozen=True)
class ReadCache:
    """Read the user's generation and one entry. Answer: two `bytes | None`."""

    keys: SearchKeys
    digest: str


@dataclass(frozen=True)
class BeginGeneration:
    """Make this the user's generation, unless there is one. Answer: the one that is there now, or None."""

    keys: SearchKeys
    token: bytes


@dataclass(frozen=True)
class WriteCache:
    """Store an entry. Answer: None."""

    keys: SearchKeys
    digest: str
    value: bytes
    now_ms: int


@dataclass(frozen=True)
class Forget:
    """Delete the user's generation, then the entries. Answer: None."""

    keys: SearchKeys


@dataclass(frozen=True)
class Embed:
    """Embed the query with a model. Answer: an `EmbedResult`."""

    model: str
    query: str
    timeout_s: float


@dataclass(frozen=True)
class Nearest:
    """Find the user's points nearest to a vector. Answer: a list of `Candidate`, nearest first."""

    collection: Collection
    vector: Vector
    user_id: UserId
    limit: int


@dataclass(frozen=True)
class Fetch:
    """Read the payloads of points that are there, and the user's. Answer: a dict of payloads by id."""

    collection: Collection
    ids: tuple[PointId, ...]
    user_id: UserId


@dataclass(frozen=True)
class Rerank:
    """Score documents by the query. Answer: a `RerankResult`."""

    query: str
    documents: tuple[str, ...]
    timeout_s: float


CacheEffect = ReadCache | BeginGeneration | WriteCache | Forget
SearchEffect = Locate | Embed | Nearest | Fetch | Rerank | CacheEffect
Result = TypeVar("Result")
SearchFlow = Generator[SearchEffect, Any, Result]
