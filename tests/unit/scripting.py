"""Helpers of the script tests: the calls, and looks at what they leave in Redis."""

from collections.abc import Sequence
from typing import Any

import redis

from producer.wire import scripts
from producer.wire.codec import decode_job
from producer.wire.keys import GROUP, Kind, Lane
from producer.wire.messages import JobHeader, Row
from tests.unit.fakes import EMBED_QUEUE, RERANK_QUEUE, run_script

INTERACTIVE, BULK = Lane.INTERACTIVE, Lane.BULK


def enqueue(
    client: redis.Redis,
    *rows: Row,
    lane: Lane = INTERACTIVE,
    channel: str = "one",
    budget_ms: int = 60_000,
    lane_limit: int = 1000,
) -> list[int]:
    header = JobHeader(kind=rows[0].kind, budget_ms=budget_ms, query=rows[0].query)
    queue = RERANK_QUEUE if rows[0].kind is Kind.PAIR else EMBED_QUEUE
    numbers: list[int] = run_script(
        client, scripts.enqueue(queue, lane, header, rows, channel=channel, lane_limit=lane_limit)
    )
    return numbers


def complete(client: redis.Redis, rows: Sequence[Row], entry_ids: Sequence[bytes], lane: Lane = INTERACTIVE) -> int:
    return int(run_script(client, scripts.complete(EMBED_QUEUE, lane, [row.digest for row in rows], entry_ids)))


def expire(client: redis.Redis, rows: Sequence[Row], entry_id: bytes, lane: Lane = INTERACTIVE) -> int:
    return int(run_script(client, scripts.expire(EMBED_QUEUE, lane, [row.digest for row in rows], entry_id)))


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
