"""Both searches' surface, on an in-memory Redis: the same names, nothing opened too early, and what `close` closes."""

import asyncio
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fakeredis
import numpy as np
import pytest
import redis
from qdrant_client import AsyncQdrantClient, models

from producer import (
    AsyncProducer,
    AsyncQdrantStore,
    AsyncSemanticSearch,
    InvalidRequest,
    Producer,
    QdrantStore,
    RedisUnavailable,
    SemanticSearch,
)
from producer.wire.codec import encode_reply, encode_vector
from producer.wire.keys import QueueKeys
from producer.wire.models import resolve
from tests.unit.fakes import query
from tests.unit.searching import contacts, fill, make_collection, provenance, qdrant

OTHER = "another"
MODELS: dict[str, Any] = {"embed_model": "offline", "rerank_model": "offline"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
    """One in-memory Redis for both clients, in which the vector of "swim" is cached for both models."""
    shared = fakeredis.FakeServer()
    monkeypatch.setattr("producer.connection.connect", lambda *_, **__: fakeredis.FakeRedis(server=shared))
    monkeypatch.setattr("producer.aio.connect_async", lambda *_, **__: fakeredis.FakeAsyncRedis(server=shared))
    client: redis.Redis = fakeredis.FakeRedis(server=shared)
    for name in ("offline", OTHER):
        key = QueueKeys.of(resolve("embed", name)).reply(query("swim").digest)
        client.set(key, encode_reply(encode_vector(np.ones(4))))
    return client


def public(cls: type) -> dict[str, Any]:
    return {name: getattr(cls, name) for name in vars(cls) if not name.startswith("_")}


def test_the_two_searches_have_the_same_names_parameters_and_defaults() -> None:
    assert public(SemanticSearch).keys() == public(AsyncSemanticSearch).keys() == {"search", "forget", "close"}
    for name in public(SemanticSearch):
        one, other = (inspect.signature(getattr(cls, name)) for cls in (SemanticSearch, AsyncSemanticSearch))
        assert one == other, name
        assert inspect.iscoroutinefunction(getattr(AsyncSemanticSearch, name))
    makers = [inspect.signature(cls) for cls in (SemanticSearch, AsyncSemanticSearch)]
    assert len({tuple((each.name, each.default) for each in maker.parameters.values()) for maker in makers}) == 1


def test_a_search_opens_nothing_and_closes_what_it_made(server: redis.Redis) -> None:
    with qdrant() as client, Producer.from_url("redis://in-memory", **MODELS) as producer:
        make_collection(client, "green", origin=provenance(OTHER))
        fill(client, "green", contacts())
        search = SemanticSearch(producer, QdrantStore.of(client, "green"), rerank=False)
        assert search._others == {}

        assert [hit.id for hit in search.search(1, "swim").results] == [1, 2, 3, 4]
        assert search.search(1, "swim").cached
        (other,) = search._others.values()
        search.forget(1)
        search.close()

        assert other._closed
        assert not producer._closed
        with pytest.raises(InvalidRequest, match="closed"):
            search.search(1, "swim")


def test_the_async_search_opens_nothing_and_closes_what_it_made(server: redis.Redis) -> None:
    async def scenario() -> None:
        client = AsyncQdrantClient(":memory:")
        await _copy(client)
        async with AsyncProducer.from_url("redis://in-memory", **MODELS) as producer:
            search = AsyncSemanticSearch(producer, AsyncQdrantStore.of(client, "green"), rerank=False)
            assert [hit.id for hit in (await search.search(1, "swim")).results] == [1, 2, 3, 4]
            assert (await search.search(1, "swim")).cached
            (other,) = search._others.values()
            await search.forget(1)
            assert not (await search.search(1, "swim")).cached
            await search.close()
            assert other._closed
            assert not producer._closed
            with pytest.raises(InvalidRequest, match="closed"):
                await search.forget(1)
        await client.close()

    asyncio.run(scenario())


async def _copy(client: AsyncQdrantClient) -> None:
    """Put what the sync helpers make into an async store."""
    with qdrant() as source:
        make_collection(source, "green")
        fill(source, "green", contacts())
        points, _ = source.scroll("green", with_vectors=True)
    params = models.VectorParams(size=4, distance=models.Distance.DOT)
    await client.create_collection("green", params, metadata=provenance(OTHER).as_metadata())
    await client.upsert(
        "green",
        [models.PointStruct(id=one.id, vector=one.vector or [], payload=one.payload) for one in points],  # type: ignore[arg-type]
    )


def test_a_search_ends_with_its_producer(server: redis.Redis) -> None:
    with qdrant() as client:
        make_collection(client, "blue")
        with Producer.from_url("redis://in-memory", **MODELS) as producer:
            search = SemanticSearch(producer, QdrantStore.of(client, "blue"))
        with pytest.raises(InvalidRequest, match="closed"):
            search.forget(1)


def test_what_cannot_be_forgotten_is_an_error(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise redis.exceptions.ConnectionError("away")

    with qdrant() as client, Producer.from_url("redis://in-memory", **MODELS) as producer:
        search = SemanticSearch(producer, QdrantStore.of(client, "blue"))
        monkeypatch.setattr("redis.client.Pipeline.execute", fail)
        with pytest.raises(RedisUnavailable, match="away"):
            search.forget(1)
        monkeypatch.undo()


def test_threads_make_one_producer_for_another_model(server: redis.Redis) -> None:
    with qdrant() as client, Producer.from_url("redis://in-memory", **MODELS) as producer:
        make_collection(client, "green", origin=provenance(OTHER))
        fill(client, "green", contacts())
        with SemanticSearch(producer, QdrantStore.of(client, "green"), rerank=False) as search:
            with ThreadPoolExecutor(8) as threads:
                found = list(threads.map(lambda user: search.search(user, "swim"), range(1, 17)))
            assert list(search._others) == [OTHER]
    assert {one.model for one in found} == {OTHER}
