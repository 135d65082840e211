"""Headrace's producer library: ask for embeddings and rankings, computed by worker pools over Redis streams.

from producer import Producer

with Producer.from_url("redis://localhost:6379/0") as producer:
    vector = producer.embed("where can I swim?", kind="query")
"""

from producer.aio import AsyncProducer
from producer.client import Producer
from producer.dead import DeadLetters
from producer.errors import (
    ConfigurationError,
    HeadraceError,
    InvalidRequest,
    InvalidText,
    MalformedMessage,
    ModelNotServed,
    QueueFull,
    RedisUnavailable,
    ResultTimeout,
    RowFailed,
    StoreUnavailable,
    UnknownModel,
    UnsupportedVersion,
    VerificationFailed,
)
from producer.results import EmbedResult, RankedDocument, RerankResult, RowOutcome
from producer.retrying import RetryReport
from producer.search import AsyncSemanticSearch, SemanticSearch
from producer.search_results import SearchHit, SearchResults, StageTimes
from producer.settings import ProducerSettings
from producer.stores import AsyncQdrantStore, QdrantStore
from producer.wire.messages import DeadLetter

__all__ = [
    "AsyncProducer",
    "AsyncQdrantStore",
    "AsyncSemanticSearch",
    "ConfigurationError",
    "DeadLetter",
    "DeadLetters",
    "EmbedResult",
    "HeadraceError",
    "InvalidRequest",
    "InvalidText",
    "MalformedMessage",
    "ModelNotServed",
    "Producer",
    "ProducerSettings",
    "QdrantStore",
    "QueueFull",
    "RankedDocument",
    "RedisUnavailable",
    "RerankResult",
    "ResultTimeout",
    "RetryReport",
    "RowFailed",
    "RowOutcome",
    "SearchHit",
    "SearchResults",
    "SemanticSearch",
    "StageTimes",
    "StoreUnavailable",
    "UnknownModel",
    "UnsupportedVersion",
    "VerificationFailed",
]
