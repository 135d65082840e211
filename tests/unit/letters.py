"""Helpers of the dead letters' tests: bury rows as a worker does, and look at what is left."""

from typing import Any

import redis

from producer.wire.codec import encode_header
from producer.wire.keys import Kind, Lane, QueueKeys
from producer.wire.letters import encode_letter
from producer.wire.messages import JobHeader, Row
from tests.unit.fakes import EMBED_QUEUE, RERANK_QUEUE


def job_fields(*rows: Row) -> dict[bytes, bytes]:
    """The stream fields of a job with these rows."""
    header = encode_header(JobHeader(kind=rows[0].kind, budget_ms=60_000, query=rows[0].query))
    return {b"job": header, **{b"%d" % number: row.text.encode() for number, row in enumerate(rows)}}


def letter_of(*rows: Row, code: str = "model_failed", deliveries: int = 1) -> dict[bytes, bytes]:
    """The fields of the letter of a job that failed."""
    return encode_letter(
        code=code,
        reason="the model raised ValueError",
        worker="host/0",
        lane=Lane.INTERACTIVE,
        entry_id=b"1763900000000-7",
        deliveries=deliveries,
        fields=job_fields(*rows) if rows else {},
    )


def bury(client: redis.Redis, *rows: Row, queue: QueueKeys | None = None, **changes: Any) -> str:
    """Add the letter of a job with these rows to its queue, or to another; return its id."""
    return bury_raw(client, letter_of(*rows, **changes), queue=queue or _queue(rows[0]))


def bury_raw(client: redis.Redis, fields: dict[bytes, bytes], *, queue: QueueKeys = EMBED_QUEUE) -> str:
    """Add any fields as a letter; return its id."""
    raw: dict[Any, Any] = {**fields}
    added: Any = client.xadd(queue.dead, raw)
    return bytes(added).decode()


def buried(client: redis.Redis, queue: QueueKeys = EMBED_QUEUE) -> list[str]:
    """The ids of the letters that are there, oldest first."""
    found: Any = client.xrange(queue.dead)
    return [letter_id.decode() for letter_id, _ in found]


def _queue(row: Row) -> QueueKeys:
    return RERANK_QUEUE if row.kind is Kind.PAIR else EMBED_QUEUE
