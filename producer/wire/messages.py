"""The messages of the protocol: what a job, a reply, a dead letter, a model card and a heartbeat hold."""

from dataclasses import dataclass, field

from producer.wire.keys import Kind, Lane, digest
from producer.wire.models import TaskName


@dataclass(frozen=True, kw_only=True, init=False)
class Row:
    """One unit of model work: a text, or a (query, document) pair; `text` is the document of a pair."""

    kind: Kind
    text: str
    query: str | None = None
    digest: bytes = field(repr=False, compare=False)

    def __init__(self, *, kind: Kind, text: str, query: str | None = None) -> None:
        # Rows are made by the million: the constructor of a frozen class, and a property for the digest, which every
        # row needs, would take twice as long as the hash itself.
        self.__dict__.update(kind=kind, text=text, query=query, digest=digest(kind, text, query))


@dataclass(frozen=True, kw_only=True)
class JobHeader:
    """What the rows of a job share: their kind, the query of a rerank, and the time the caller gives it."""

    kind: Kind
    budget_ms: int
    query: str | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """One stream entry, decoded."""

    header: JobHeader
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class EntrySize:
    """What a stream entry counts on its lane: its rows, and the bytes of its fields' values."""

    id: bytes
    rows: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class EmbeddingReply:
    """The vector of one text: float32, little-endian bytes; a view of the reply that it came in, or its own."""

    vector: bytes | memoryview


@dataclass(frozen=True, kw_only=True)
class ScoreReply:
    """The relevance of one document to one query, as the cross-encoder gives it (unbounded; higher is better)."""

    score: float


@dataclass(frozen=True, kw_only=True)
class FailureReply:
    """Why a row could not be computed; short-lived, and never a cache hit."""

    code: str
    message: str
    failed_at_ms: int


Reply = EmbeddingReply | ScoreReply | FailureReply


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A job that died, or an entry that never was one. Times are Redis server time, milliseconds.

    What cannot be read is empty or None; `unreadable` says why the letter cannot be retried, None if it can.
    `deliveries` counts the attempts, `payload_bytes` is the size of the job's own stream fields.
    """

    id: str
    code: str
    reason: str
    worker: str
    lane: Lane | None
    entry_id: str
    enqueued_at_ms: int | None
    died_at_ms: int | None
    deliveries: int
    payload_bytes: int
    job: Job | None
    unreadable: str | None


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a running pool says of its model.

    `weights_sha256` covers the weights and the tokenizer; a worker with other ones under the same tag refuses
    to start. `dimension` is 0 for rerankers, `max_tokens` 0 where the model has no limit. `method` says how
    `headrace optimize` made the model and what its checks gave; empty for one that it did not make.
    """

    task: TaskName
    model: str
    dimension: int
    max_tokens: int
    weights_sha256: str
    query_prefix: str
    passage_prefix: str
    batch_invariant: bool
    method: str


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """What a worker process says of itself every few seconds. Times are Redis server time, milliseconds.

    `progressed_at_ms` is when its engine last came round: read from Redis or finished a batch. A process that
    is alive but does not move has an old one. `batch_limit_ms` is how long one batch may take it.
    """

    model: str
    model_loaded: bool
    dimension: int
    host: str
    pid: int
    state: str
    in_flight_rows: int
    rows_done: int
    rows_per_s: float
    started_at_ms: int
    beat_at_ms: int
    progressed_at_ms: int
    batch_limit_ms: int
