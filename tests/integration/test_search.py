"""Searches on a real Redis and an embedded Qdrant: sync, async, by many threads, with several models and real ones."""

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient

from producer import AsyncQdrantStore, AsyncSemanticSearch, QdrantStore, SearchResults, SemanticSearch
from tests.integration.conftest import OfflinePools
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import score_of
from tests.integration.harness.processes import ROOT
from tests.integration.harness.searching import TEXTS, make_collection, make_contacts, point_alias, upsert
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

QUERY = "where can I swim?"


@pytest.fixture
def qdrant() -> Iterator[QdrantClient]:
    """An embedded store in memory, with the contacts of two users."""
    client = QdrantClient(":memory:")
    make_contacts(client, "contacts")
    yield client
    client.close()


def best_first(user: int) -> list[str]:
    """The texts of a user in the order of the fake reranker."""
    return sorted((f"{text} of {user}" for text in TEXTS), key=lambda text: -score_of(QUERY, text))


def test_a_search_asks_both_pools_once_and_then_its_cache(site: Site, qdrant: QdrantClient) -> None:
    with Engine(site) as embedder, Engine(site, task="rerank") as reranker, site.producer() as producer:
        with SemanticSearch(producer, QdrantStore.of(qdrant, "contacts")) as search:
            cold = search.search(7, QUERY)
            cached = search.search("7", QUERY)
            other = search.search(8, QUERY)
            search.forget(7)
            warm = search.search(7, QUERY)
        assert embedder.model.computed == [QUERY]
        assert len(reranker.model.computed) == 2 * len(TEXTS)
    assert [hit.text for hit in cold.results] == best_first(7)
    assert [hit.text for hit in other.results] == best_first(8)
    assert cached.results == cold.results
    assert [hit.text for hit in warm.results] == best_first(7)
    assert [(one.cached, one.embedding_cached) for one in (cold, cached, other, warm)] == [
        (False, False),
        (True, None),
        (False, True),
        (False, True),
    ]
    assert cold.timings_ms.rerank is not None
    assert cached.timings_ms.embedding is None


def test_the_async_search_does_the_same(solo: Site, tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    client = QdrantClient(path=path)
    make_contacts(client, "contacts", model="fake@next")
    client.close()

    async def scenario() -> list[SearchResults]:
        own = AsyncQdrantClient(path=path)
        store = AsyncQdrantStore.of(own, "contacts")
        async with solo.async_producer() as producer, AsyncSemanticSearch(producer, store) as search:
            found = [await search.search(7, QUERY), await search.search(7, QUERY)]
            await search.forget(7)
            found += await asyncio.gather(*(search.search(user, QUERY) for user in (7, 8, 7)))
        await own.close()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == [], "what was opened for the other model is closed"
        return found

    other = dataclasses.replace(solo, model="fake@next")
    with Engine(solo) as ours, Engine(other, name="other/0") as theirs, Engine(solo, task="rerank"):
        found = asyncio.run(scenario())
        assert (ours.model.computed, theirs.model.computed) == ([], [QUERY])
    assert [hit.text for hit in found[0].results] == best_first(7)
    assert found[1].results == found[0].results
    assert [hit.text for hit in found[2].results] == best_first(7)
    assert [hit.text for hit in found[3].results] == best_first(8)
    assert [one.cached for one in found[:3]] == [False, True, False]


def test_threads_search_while_the_alias_moves_to_another_model(solo: Site, qdrant: QdrantClient) -> None:
    make_contacts(qdrant, "blue", model=solo.model)
    make_contacts(qdrant, "green", model="fake@next")
    point_alias(qdrant, "live", "blue")
    models = {"blue": solo.model, "green": "fake@next"}
    other = dataclasses.replace(solo, model="fake@next")

    with Engine(solo), Engine(other, name="other/0"), Engine(solo, task="rerank"), solo.producer() as producer:
        search = SemanticSearch(producer, QdrantStore.of(qdrant, "live"))

        def ask(number: int) -> SearchResults:
            if number == 20:
                point_alias(qdrant, "live", "green")
            return search.search(7, f"{QUERY} {number}")

        with search, ThreadPoolExecutor(4) as threads:
            found = list(threads.map(ask, range(40)))
            wait_until(lambda: search.search(7, "at last").collection == "green", what="the move to be seen")
    assert all(one.model == models[one.collection] for one in found)
    assert all(len(one.results) == len(TEXTS) and not one.fallback_used for one in found)


def test_without_a_rerank_pool_the_vectors_order_is_left(solo: Site, qdrant: QdrantClient) -> None:
    with Engine(solo), solo.producer() as producer:
        search = SemanticSearch(producer, QdrantStore.of(qdrant, "contacts"))
        producer.embed(QUERY)
        found = search.search(7, QUERY, timeout_s=0.5)
    assert found.fallback_used
    assert (found.fallback_reason or "").startswith("result_timeout: no result within 0.")
    assert [hit.vector_rank for hit in found.results] == [1, 2, 3, 4, 5]


def test_real_models_find_who_repairs_the_organ(offline: OfflinePools) -> None:
    records = [json.loads(line) for line in (ROOT / "console" / "records.jsonl").read_text().splitlines()]
    mine = [{**record, "user_id": number % 2} for number, record in enumerate(records)]
    client = QdrantClient(":memory:")
    make_collection(client, "contacts", 384, model="offline")
    with offline.site.producer() as producer:
        upsert(client, "contacts", mine, list(producer.embed_many([record["text"] for record in mine])))
        search = SemanticSearch(producer, QdrantStore.of(client, "contacts"))
        owner = next(record["user_id"] for record in mine if record["id"] == "c031")
        query = "our church organ wheezes, who repairs it?"
        found, again = search.search(owner, query, 3), search.search(owner, query, 3)
        others = search.search(1 - owner, query, 50)
    client.close()
    assert found.results[0].payload["id"] == "c031"
    assert not found.fallback_used
    assert (again.cached, again.results) == (True, found.results)
    assert len(others.results) == 50
    assert "c031" not in {hit.payload["id"] for hit in others.results}
