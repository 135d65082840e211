"""Searches of a Qdrant that is asked over HTTP (a stand-in for its server): both clients, API keys, what goes away."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from qdrant_client import models

from producer import AsyncQdrantStore, AsyncSemanticSearch, QdrantStore, SearchResults, SemanticSearch, StoreUnavailable
from tests.integration.harness.engine import Engine
from tests.integration.harness.qdrant_program import QdrantServer
from tests.integration.harness.searching import TEXTS, make_contacts, point_alias
from tests.integration.harness.site import Site

QUERY = "where can I swim?"
API_KEY = "the key of this store"


@pytest.fixture
def contacts(tmp_path: Path, solo: Site) -> Iterator[QdrantServer]:
    """A server that asks for a key, with the indexed contacts of two users behind an alias, and both pools."""
    with QdrantServer(tmp_path / "qdrant", api_key=API_KEY) as server:
        client = server.client()
        make_contacts(client, "contacts-1", model=solo.model)
        client.create_payload_index("contacts-1", "user_id", models.PayloadSchemaType.INTEGER)
        point_alias(client, "contacts", "contacts-1")
        client.close()
        with Engine(solo), Engine(solo, task="rerank"):
            yield server


def test_both_clients_search_by_url_and_notice_what_goes_away(solo: Site, contacts: QdrantServer) -> None:
    url = contacts.url("contacts")

    async def ask() -> list[SearchResults]:
        async with AsyncQdrantStore(url, api_key=API_KEY) as store, solo.async_producer() as producer:
            search = AsyncSemanticSearch(producer, store)
            await search.forget(7)
            return [await search.search(7, QUERY), await search.search("7", QUERY)]

    with (
        QdrantStore(url, api_key=API_KEY) as store,
        solo.producer() as producer,
        SemanticSearch(producer, store) as search,
    ):
        assert store.locate().user_index == "integer"
        first, again = search.search(7, QUERY), search.search("7", QUERY)
        others = asyncio.run(ask())
        with (
            pytest.raises(StoreUnavailable, match="no collection 'gone'") as caught,
            QdrantStore(contacts.url("gone"), api_key=API_KEY) as gone,
        ):
            SemanticSearch(producer, gone).search(7, QUERY)
        assert caught.value.code == "no_such_collection"
        with pytest.raises(StoreUnavailable, match="API key") as caught, QdrantStore(url) as unkeyed:
            SemanticSearch(producer, unkeyed).search(7, QUERY)
        assert caught.value.code == "store_refused"
        contacts.kill()
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            search.search(8, QUERY)
    assert {hit.text for hit in first.results} == {f"{text} of 7" for text in TEXTS}
    assert (first.collection, first.model, first.fallback_used) == ("contacts-1", solo.model, False)
    assert (again.cached, again.results) == (True, first.results)
    assert [one.cached for one in others] == [False, True]
    assert [hit.id for hit in others[0].results] == [hit.id for hit in first.results]
