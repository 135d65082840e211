"""Performs what a search asks of its cache in Redis, sync and async, by commands of one key each."""

from typing import Any

import redis
import redis.asyncio

from producer.connection import LONGEST_S, STATE_S, redis_errors
from producer.search_effects import BeginGeneration, CacheEffect, Forget, ReadCache, WriteCache

ENTRY_LIFE_S = 300
GENERATION_LIFE_S = 3600
"""Longer than any entry, so that few are lost at its end; a lost generation is a miss, never somebody's old results."""


def patience_s(effect: CacheEffect) -> float:
    """How long Redis may take: a search goes on without its cache, but what must be forgotten must be."""
    return LONGEST_S if isinstance(effect, Forget) else STATE_S


def perform(client: redis.Redis, effect: CacheEffect) -> Any:
    """Perform an effect.

    Raises:
        RedisUnavailable: Redis does not answer, or refuses.
    """
    with redis_errors(), client.pipeline(transaction=False) as pipeline:
        _ask(pipeline, effect)
        replies = pipeline.execute()
        if isinstance(effect, Forget) and replies[1]:
            _unlink(pipeline, effect, replies[1])
            pipeline.execute()
    return _answer(effect, replies)


async def perform_async(client: redis.asyncio.Redis, effect: CacheEffect) -> Any:
    """The same for asyncio; redis-py's errors are the caller's to map."""
    async with client.pipeline(transaction=False) as pipeline:
        _ask(pipeline, effect)
        replies = await pipeline.execute()
        if isinstance(effect, Forget) and replies[1]:
            _unlink(pipeline, effect, replies[1])
            await pipeline.execute()
    return _answer(effect, replies)


def _ask(pipeline: Any, effect: CacheEffect) -> None:
    keys = effect.keys
    match effect:
        case ReadCache(_, digest):
            pipeline.get(keys.generation)
            pipeline.get(keys.entry(digest))
        case BeginGeneration(_, token):
            pipeline.set(keys.generation, token, ex=GENERATION_LIFE_S, nx=True)
            pipeline.get(keys.generation)
        case WriteCache(_, digest, value, now_ms):
            pipeline.set(keys.entry(digest), value, ex=ENTRY_LIFE_S)
            pipeline.zadd(keys.entries, {digest: now_ms})
            pipeline.zremrangebyscore(keys.entries, "-inf", now_ms - ENTRY_LIFE_S * 1000)
            pipeline.expire(keys.entries, ENTRY_LIFE_S)
        case Forget():
            # The generation first: without it, no entry is served any more, whoever stores one meanwhile.
            pipeline.unlink(keys.generation)
            pipeline.zrange(keys.entries, 0, -1)
            pipeline.unlink(keys.entries)


def _unlink(pipeline: Any, effect: CacheEffect, digests: list[bytes]) -> None:
    for digest in digests:
        pipeline.unlink(effect.keys.entry(digest.decode(errors="replace")))


def _answer(effect: CacheEffect, replies: list[Any]) -> Any:
    match effect:
        case ReadCache():
            return replies
        case BeginGeneration():
            return replies[1]
    return None
