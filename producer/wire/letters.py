"""Encodes and decodes dead letters: why a job died, beside the job's own stream fields, so that it can be retried."""

import re
from collections.abc import Mapping

from producer.errors import MalformedMessage
from producer.wire.codec import decode_job
from producer.wire.keys import Lane
from producer.wire.messages import DeadLetter, Job

PREFIX = b"dead:"
"""Names of the fields that say why an entry died; its own fields stand beside them as they were."""

MAX_PAYLOAD_BYTES = 2 * 64 * 1024 + 1024
"""A job's own fields are kept up to this size. A row that failed is a job of its own, and the largest one that a pool
with the default limits takes is a pair: query and document of 64 KiB each, with less than 100 bytes around them.
What is larger never was a job of such a pool, and is left out: letters are not trimmed by size."""

_NUMBER = re.compile(rb"[0-9]{1,18}")
_STREAM_ID = re.compile(rb"([0-9]{1,20})-[0-9]{1,20}")


def encode_letter(
    *,
    code: str,
    reason: str,
    worker: str,
    lane: Lane,
    entry_id: bytes,
    deliveries: int,
    fields: Mapping[bytes, bytes],
) -> dict[bytes, bytes]:
    """Make the stream fields of a dead letter out of an entry's id and fields; they need not be a job's."""
    letter = {
        PREFIX + b"code": _encode(code),
        PREFIX + b"reason": _encode(reason),
        PREFIX + b"worker": _encode(worker),
        PREFIX + b"lane": _encode(lane.value),
        PREFIX + b"entry": entry_id,
        PREFIX + b"deliveries": b"%d" % deliveries,
    }
    own = {name: value for name, value in fields.items() if not name.startswith(PREFIX)}  # nobody else signs as us
    payload_bytes = _size(own)
    if payload_bytes > MAX_PAYLOAD_BYTES:
        return {**letter, PREFIX + b"left_out": b"%d" % payload_bytes}
    return {**letter, **own}


def decode_letter(letter_id: bytes, fields: Mapping[bytes, bytes]) -> DeadLetter:
    """Read what can be read of a dead letter, whatever its bytes; never raises."""
    entry_id = fields.get(PREFIX + b"entry", b"")
    own = {name: value for name, value in fields.items() if not name.startswith(PREFIX)}
    left_out = _number(fields.get(PREFIX + b"left_out", b""), default=0)
    job, unreadable = _decode_job(own, left_out)
    return DeadLetter(
        id=_decode(letter_id),
        code=_decode(fields.get(PREFIX + b"code", b"")),
        reason=_decode(fields.get(PREFIX + b"reason", b"")),
        worker=_decode(fields.get(PREFIX + b"worker", b"")),
        lane=_LANES.get(fields.get(PREFIX + b"lane", b"")),
        entry_id=_decode(entry_id),
        enqueued_at_ms=_time_ms(entry_id),
        died_at_ms=_time_ms(letter_id),
        deliveries=_number(fields.get(PREFIX + b"deliveries", b""), default=1),
        payload_bytes=_size(own) or left_out,
        job=job,
        unreadable=unreadable,
    )


_LANES = {lane.value.encode(): lane for lane in Lane}


def _decode_job(own: Mapping[bytes, bytes], left_out: int) -> tuple[Job | None, str | None]:
    """The job of a letter, or why there is none."""
    if left_out and not own:
        return None, f"its job was left out, it was {left_out} bytes long"
    if not own:
        return None, "it holds no job"
    try:
        return decode_job(own), None
    except MalformedMessage as error:
        return None, str(error)


def _size(fields: Mapping[bytes, bytes]) -> int:
    return sum(len(name) + len(value) for name, value in fields.items())


def _time_ms(stream_id: bytes) -> int | None:
    """When Redis gave this id, by its clock."""
    match = _STREAM_ID.fullmatch(stream_id)
    return int(match[1]) if match else None


def _number(data: bytes, *, default: int) -> int:
    return int(data) if _NUMBER.fullmatch(data) else default


def _encode(text: str) -> bytes:
    return text.encode(errors="replace")


def _decode(data: bytes) -> str:
    return data.decode(errors="replace")
