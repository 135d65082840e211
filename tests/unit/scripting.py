"""Helpers of the script tests: the calls, and looks at what they leave in Redis."""

from collections.abc import Sequence
from typing import Any

import redis

from producer.wire import scripts
from producer.wire.codec import decode_job
from producer.wire.keys import GROUP, Kind, Lane
from producer.wire.messages import EntrySize, JobHeader, Row
from producer.wire.scripts import LaneLimit
from tests.unit.fakes import EMBED_QUEUE, RERANK_QUEUE, run_script
from workers.entries import Entry

INTERACTIVE, BULK = Lane.INTERACTIVE, Lane.BULK


def enqueue(
    client: redis.Redis,
    *rows: Row,
    lane: Lane = INTERACTIVE,
    channel: str = "one",
    budget_ms: int = 60_000,
    lane_limit: int = 1000,
    lane_limit_bytes: int = 1_000_000,
) -> list[int]:
    header = JobHeader(kind=rows[0].kind, budget_ms=budget_ms, query=rows[0].query)
    limit = LaneLimit(rows=lane_limit, size_bytes=lane_limit_bytes)
    queue = RERANK_QUEUE if rows[0].kind is Kind.PAIR else EMBED_QUEUE
    numbers: list[int] = run_script(client, scripts.enqueue(queue, lane, header, rows, channel=channel, limit=limit))
    return numbers


def complete(client: redis.Redis, rows: Sequence[Row], entry_ids: Sequence[bytes], lane: Lane = INTERACTIVE) -> int:
    done = [size(client, entry_id, lane) for entry_id in entry_ids]
    return int(run_script(client, scripts.complete(EMBED_QUEUE, lane, [row.digest for row in rows], done)))


def expire(client: redis.Redis, rows: Sequence[Row], entry_id: bytes, lane: Lane = INTERACTIVE) -> int:
    entry = size(client, entry_id, lane)
    return int(run_script(client, scripts.expire(EMBED_QUEUE, lane, [row.digest for row in rows], entry)))


def size(client: redis.Redis, entry_id: bytes, lane: Lane = INTERACTIVE) -> EntrySize:
    """What an entry counts, as the worker that read it says; one that is gone may have counted anything."""
    found = [fields for id_, fields in entries(client, lane) if id_ == entry_id]
    return Entry(lane=lane, id=entry_id, fields=found[0] if found else {b"gone": b"7 bytes"}).size


def load(client: redis.Redis, lane: Lane = INTERACTIVE, key: str = EMBED_QUEUE.load) -> tuple[int, int]:
    """Rows and bytes that the lane is said to hold."""
    found: Any = client.hmget(key, f"{lane}:rows", f"{lane}:bytes")
    return int(found[0] or 0), int(found[1] or 0)


def entries(client: redis.Redis, lane: Lane = INTERACTIVE, key: str = "") -> list[tuple[bytes, dict[bytes, bytes]]]:
    found: Any = client.xrange(key or EMBED_QUEUE.lane(lane))
    return list(found)


def texts(client: redis.Redis, lane: Lane = INTERACTIVE) -> list[str]:
    return [row.text for _, fields in entries(client, lane) for row in decode_job(fields).rows]


def waiting(client: redis.Redis, row: Row) -> dict[bytes, bytes]:
    found: Any = client.hgetall(EMBED_QUEUE.wait(row.digest))
    return dict(found)


def wait_ttl_ms(client: redis.Redis, row: Row) -> int:
    ttl: Any = client.pttl(EMBED_QUEUE.wait(row.digest))
    return int(ttl)


def read(client: redis.Redis, lane: Lane = INTERACTIVE) -> list[bytes]:
    """Let a worker read the lane, so that its entries are pending."""
    client.xgroup_create(EMBED_QUEUE.lane(lane), GROUP, id="0")
    found: Any = client.xreadgroup(GROUP, "worker", {EMBED_QUEUE.lane(lane): ">"})
    return [entry_id for _, given in found for entry_id, _ in given]


def heard(pubsub: Any) -> list[tuple[bytes, bytes]]:
    """The hints that were published to whoever subscribed, as (channel, data)."""
    messages = iter(lambda: pubsub.get_message(timeout=0), None)
    return [(message["channel"], message["data"]) for message in messages if message["type"] == "message"]
