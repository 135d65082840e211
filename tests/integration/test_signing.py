"""Signed results on a real server: what somebody else has written there is a miss, and is computed again."""

import asyncio
import logging

import numpy as np
import pytest
import redis

from producer import ResultTimeout
from producer.wire.codec import encode_reply, encode_vector
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import vector_of
from tests.integration.harness.site import Site, passage
from tests.integration.harness.waiting import wait_until

KEY, OTHER = "the key of this namespace", "the key of somebody else"
FORGED = encode_reply(encode_vector(np.zeros(8, dtype=np.float32)))


def reply_key(site: Site, text: str) -> str:
    return site.queue().reply(passage(text).digest)


def test_results_are_signed_and_served_from_the_cache(site: Site) -> None:
    with Engine(site, cache_key=KEY) as engine, site.producer(cache_key=KEY) as producer:
        for _ in range(2):
            assert np.array_equal(producer.embed("text", "passage"), vector_of("text"))
        assert producer.cached(["text", "other"]) == [True, False]
        assert engine.model.computed == ["text"]
        stored = site.client.get(reply_key(site, "text"))
    assert isinstance(stored, bytes)
    assert stored.endswith(encode_reply(encode_vector(vector_of("text"))))
    assert len(stored) == 32 + len(FORGED)


@pytest.mark.parametrize("forgery", ["unsigned", "of another key", "of another row"])
def test_a_forged_value_is_a_miss_for_callers_and_workers(
    solo: Site, forgery: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Engine(solo, cache_key=OTHER), solo.producer(cache_key=OTHER) as stranger:
        stranger.embed_many(["text", "row"])
    with Engine(solo, cache_key=KEY) as engine, solo.producer(cache_key=KEY) as producer:
        producer.embed("row", "passage")
        if forgery == "unsigned":
            solo.client.set(reply_key(solo, "text"), FORGED)
        elif forgery == "of another row":
            copy_value(solo.client, reply_key(solo, "row"), reply_key(solo, "text"))
        assert producer.cached(["text"]) == [False]
        assert np.array_equal(producer.embed("text", "passage"), vector_of("text"))
        assert engine.model.computed == ["row", "text"]
        assert producer.cached(["text"]) == [True]
    assert [record.levelno for record in caplog.records if "does not verify" in record.message] >= [logging.WARNING]

    async def ask() -> None:
        solo.client.set(reply_key(solo, "text"), FORGED)
        with Engine(solo, cache_key=KEY):
            async with solo.async_producer(cache_key=KEY) as asking:
                assert await asking.cached(["text"]) == [False]
                assert np.array_equal(await asking.embed("text", "passage"), vector_of("text"))

    asyncio.run(ask())


@pytest.mark.parametrize("own", [OTHER, ""])
def test_a_caller_with_another_key_than_the_pool_is_told_so(solo: Site, own: str) -> None:
    told = pytest.raises(ResultTimeout, match="1 results cannot be read or do not verify: is HEADRACE_CACHE_KEY")
    with Engine(solo, cache_key=KEY), solo.producer(cache_key=own, timeout_s=2.0) as producer, told:
        producer.embed("text")


def test_reranks_are_signed_too(solo: Site) -> None:
    with Engine(solo, task="rerank", cache_key=KEY), solo.producer(cache_key=KEY) as producer:
        first = producer.rerank("q", ["a", "b", "c"])
        again = producer.rerank("q", ["a", "b", "c"])
    assert (first.cached_pairs, again.cached_pairs) == (0, 3)
    assert [result.score for result in first.results] == [result.score for result in again.results]


def test_a_failure_that_somebody_forged_reaches_nobody(solo: Site) -> None:
    """Without signing, whoever may write a reply key could fail rows of others."""
    with solo.producer(cache_key=KEY) as producer, Engine(solo, cache_key=KEY):
        wait_until(lambda: producer.queue_state("embed").card is not None, what="a pool")
        solo.client.set(reply_key(solo, "text"), b"\x84\xa1v\x01\xa5error\xa1x\xa7message\xa1y\xacfailed_at_ms\x01")
        assert np.array_equal(producer.embed("text", "passage"), vector_of("text"))


def copy_value(client: redis.Redis, source: str, target: str) -> None:
    value = client.get(source)
    assert isinstance(value, bytes)
    client.set(target, value)
