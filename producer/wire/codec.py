"""Encodes and decodes every message: msgpack maps with a version, checked field by field, no extension types."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any, TypeVar

import msgpack
import numpy as np

from producer.errors import MalformedMessage, UnsupportedVersion
from producer.wire.keys import Kind
from producer.wire.messages import (
    EmbeddingReply,
    FailureReply,
    Heartbeat,
    Job,
    JobHeader,
    ModelCard,
    Reply,
    Row,
    ScoreReply,
)
from producer.wire.models import TASKS

VERSION = 1
HEADER_FIELD = b"job"
"""Stream field of the header; the rows are fields named 0, 1, 2, … and hold their text as UTF-8."""

MAX_ROWS_PER_JOB = 100
MAX_BUDGET_MS = 24 * 3600 * 1000
_MAX_FIELDS = 32
_MAX_HEADER_BYTES = 1024 * 1024
_MAX_REPLY_BYTES = 1024 * 1024
_MAX_NOTE_BYTES = 64 * 1024
"""The longest job header (most of it a query), reply (most of it a vector) and card or heartbeat that is decoded."""

Message = TypeVar("Message", ModelCard, Heartbeat)


def encode_header(header: JobHeader) -> bytes:
    """Encode what the rows of a job share; the script adds the rows as stream fields of their own."""
    body: dict[str, Any] = {"kind": header.kind.value, "budget_ms": header.budget_ms}
    if header.query is not None:
        body["query"] = header.query
    return pack(body)


def decode_job(entry: Mapping[bytes, bytes]) -> Job:
    """Decode one stream entry.

    Raises:
        UnsupportedVersion: the header is of another protocol version.
        MalformedMessage: anything else that is not a job of this protocol.
    """
    header = _decode_header(entry.get(HEADER_FIELD))
    count = len(entry) - 1
    if not 1 <= count <= MAX_ROWS_PER_JOB:
        raise MalformedMessage(f"a job holds 1 to {MAX_ROWS_PER_JOB} rows, not {count}")
    rows = []
    for index in range(count):
        text = entry.get(b"%d" % index)
        if text is None:
            raise MalformedMessage(f"unknown stream fields: row {index} of {count} is missing")
        rows.append(Row(kind=header.kind, text=_utf8(text), query=header.query))
    return Job(header=header, rows=tuple(rows))


def _decode_header(data: bytes | None) -> JobHeader:
    if data is None:
        raise MalformedMessage("the entry has no job header")
    body = unpack(data, _MAX_HEADER_BYTES)
    expect(body, required={"kind", "budget_ms"}, optional={"query"})
    kind, budget_ms, query = body["kind"], body["budget_ms"], body.get("query")
    if not isinstance(kind, str) or kind not in set(Kind):
        raise MalformedMessage("the job is of an unknown kind")
    if type(budget_ms) is not int or not 0 < budget_ms <= MAX_BUDGET_MS:
        raise MalformedMessage(f"budget_ms is not a whole number between 1 and {MAX_BUDGET_MS}")
    if ("query" in body) != (kind == Kind.PAIR) or not isinstance(body.get("query", ""), str):
        raise MalformedMessage("a query is for jobs of kind 'pair', and only for them")
    return JobHeader(kind=Kind(kind), budget_ms=budget_ms, query=query)


def encode_reply(reply: Reply) -> bytes:
    """Encode the value of a reply key."""
    if isinstance(reply, EmbeddingReply):
        return pack({"vector": reply.vector})
    if isinstance(reply, ScoreReply):
        return pack({"score": reply.score})
    return pack({"error": reply.code, "message": reply.message, "failed_at_ms": reply.failed_at_ms})


def decode_reply(data: bytes) -> Reply:
    """Decode the value of a reply key.

    Raises:
        MalformedMessage: it is not a reply of this protocol version.
    """
    start = _vector_start(len(data))
    if start and data.startswith(start):
        return EmbeddingReply(vector=memoryview(data)[len(start) :])
    body = unpack(data, _MAX_REPLY_BYTES)
    if "vector" in body:
        expect(body, required={"vector"})
        vector = body["vector"]
        if not isinstance(vector, bytes) or not vector or len(vector) % 4:
            raise MalformedMessage("the vector is not a row of float32")
        return EmbeddingReply(vector=vector)
    if "score" in body:
        expect(body, required={"score"})
        if not isinstance(body["score"], float) or not math.isfinite(body["score"]):
            raise MalformedMessage("the score is not a finite number")
        return ScoreReply(score=body["score"])
    expect(body, required={"error", "message", "failed_at_ms"})
    check_types(body, {"error": str, "message": str, "failed_at_ms": int})
    return FailureReply(code=body["error"], message=body["message"], failed_at_ms=body["failed_at_ms"])


PEEK_BYTES = 32
"""Enough of a reply to tell a result from a failure."""


def begins_result(start: bytes) -> bool:
    """Whether a value whose first `PEEK_BYTES` these are looks like an answer; it may still be damaged behind them."""
    return start.startswith(_RESULT_STARTS)


def is_result(data: bytes | None) -> bool:
    """Whether the value of a reply key is an answer: there, readable, and no failure."""
    try:
        return data is not None and not isinstance(decode_reply(data), FailureReply)
    except MalformedMessage:
        return False


def encode_vector(vector: np.ndarray[Any, Any]) -> EmbeddingReply:
    """Make the reply of one float vector of shape (dimension,)."""
    return EmbeddingReply(vector=np.ascontiguousarray(vector, dtype="<f4").tobytes())


def decode_vector(reply: EmbeddingReply) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Read the vector: float32, shape (dimension,), not writable (it is a view of the reply)."""
    return np.frombuffer(reply.vector, dtype="<f4")


def read_vectors(replies: Sequence[bytes | None]) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """Read replies into one array, if all of them are vectors of one dimension as we write them.

    None says that `decode_reply` must look: there may be nothing, a failure, or another encoding of a vector.
    """
    size_bytes = len(replies[0] or b"")
    if not (start := _vector_start(size_bytes)):
        return None
    at = len(start)
    parts = [
        memoryview(reply)[at:]
        for reply in replies
        if reply is not None and len(reply) == size_bytes and reply.startswith(start)
    ]
    return _joined(parts) if len(parts) == len(replies) else None


def decode_vectors(replies: Sequence[EmbeddingReply]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Read vectors into one array: float32, shape (n, dimension), writable; none at all give shape (0, 0).

    Raises:
        MalformedMessage: their dimensions differ.
    """
    if not replies:
        return np.empty((0, 0), dtype=np.float32)
    parts = [reply.vector for reply in replies]
    if len(set(map(len, parts))) > 1:
        raise MalformedMessage("replies of different dimensions under one tag")
    return _joined(parts)


def _joined(parts: Sequence[bytes | memoryview]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.frombuffer(bytearray().join(parts), dtype="<f4").reshape(len(parts), -1)


def encode_message(message: ModelCard | Heartbeat) -> bytes:
    """Encode a model card or a heartbeat."""
    return pack({field.name: getattr(message, field.name) for field in fields(message)})


def decode_message(cls: type[Message], data: bytes) -> Message:
    """Decode a model card or a heartbeat.

    Raises:
        MalformedMessage: it is not a message of that class.
    """
    body = unpack(data, _MAX_NOTE_BYTES)
    expect(body, required={field.name for field in fields(cls)})
    types = {"str": str, "int": int, "float": float, "bool": bool, "TaskName": str}
    check_types(body, {field.name: types[_type_name(field.type)] for field in fields(cls)})
    if body.get("task", TASKS[0]) not in TASKS:
        raise MalformedMessage("the task is unknown")
    return cls(**body)


def _type_name(annotation: Any) -> str:
    """The name of a field's type; the one that is no class is the task's literal."""
    return annotation.__name__ if isinstance(annotation, type) else "TaskName"


_RESULT_STARTS = tuple(b"\x82\xa1v" + bytes([VERSION]) + msgpack.packb(name) for name in ("vector", "score"))
"""How the two kinds of results begin: a map of two, the version, and the name of what it holds."""


@lru_cache
def _vector_start(reply_bytes: int) -> bytes:
    """How a reply of that many bytes begins, as we write it, with a vector of 256 to 65,535 bytes; else nothing."""
    size = reply_bytes - len(_RESULT_STARTS[0]) - 3  # the type, and a length of two bytes
    if size % 4 or not 0xFF < size <= 0xFFFF:
        return b""
    start: bytes = _RESULT_STARTS[0] + b"\xc5" + size.to_bytes(2)
    return start


def pack(body: dict[str, Any]) -> bytes:
    """Encode a message of this protocol version."""
    packed: bytes = msgpack.packb({"v": VERSION, **body}, use_bin_type=True)
    return packed


def unpack(data: bytes, most_bytes: int, *, most_items: int = 0) -> dict[str, Any]:
    """Decode a message: a map with our version, of so many bytes at most, whose lists have so many items at most."""
    if len(data) > most_bytes:
        raise MalformedMessage(f"the message has {len(data)} bytes, more than {most_bytes}")
    try:
        body = msgpack.unpackb(
            data,
            raw=False,
            strict_map_key=True,
            max_str_len=most_bytes,
            max_bin_len=most_bytes,
            max_array_len=most_items,
            max_map_len=_MAX_FIELDS,
            max_ext_len=0,
        )
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise MalformedMessage(f"not msgpack: {type(error).__name__}") from error
    if not isinstance(body, dict):
        raise MalformedMessage("not a map")
    version = body.pop("v", None)
    if type(version) is not int:
        raise MalformedMessage("the message has no protocol version")
    if version != VERSION:
        raise UnsupportedVersion(f"protocol version {version}, this release speaks {VERSION}")
    return body


def expect(body: dict[str, Any], *, required: set[str], optional: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Refuse a message with other fields than these."""
    if missing := sorted(required - body.keys()):
        raise MalformedMessage(f"missing fields: {', '.join(missing)}")
    if unknown := len(body.keys() - required - optional):
        raise MalformedMessage(f"{unknown} unknown fields")


def check_types(body: dict[str, Any], types: dict[str, type]) -> None:
    """Refuse fields of other types than these, and numbers that are not finite."""
    for name, expected in types.items():
        if type(body[name]) is not expected:
            raise MalformedMessage(f"{name} is not of type {expected.__name__}")
        if expected is float and not math.isfinite(body[name]):
            raise MalformedMessage(f"{name} is not a finite number")


def _utf8(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise MalformedMessage("a row is not UTF-8") from error
