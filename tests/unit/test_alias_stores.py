"""Aliases by plain REST: what is sent, and how a server that refuses or is away is told."""

import json
from collections.abc import Callable

import httpx
import pytest

from producer import ConfigurationError, StoreUnavailable
from producer.bulk.alias_stores import RestAliasStore, open_alias_store
from producer.provenance import Provenance
from producer.qdrant import QdrantAddress

PROVENANCE = Provenance(
    model="fake", tag="fake-0", dimension=4, kind="passage", template="{text}", source="s", state="complete"
)


def store(answer: Callable[[httpx.Request], httpx.Response]) -> RestAliasStore:
    client = httpx.Client(base_url="http://host:6333", transport=httpx.MockTransport(answer))
    return RestAliasStore(client, "http://host:6333")


def test_an_alias_moves_in_one_request() -> None:
    sent: list[tuple[str, str, object]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append((request.method, request.url.raw_path.decode(), json.loads(request.content)))
        return httpx.Response(200, json={"result": True, "status": "ok", "time": 0.0})

    asked = store(answer)
    asked.point("contacts", "v2", current="v1")
    asked.point("contacts", "v1", current="")
    asked.describe("my contacts/v2", PROVENANCE)
    created = {"create_alias": {"collection_name": "v2", "alias_name": "contacts"}}
    assert sent == [
        ("POST", "/collections/aliases", {"actions": [{"delete_alias": {"alias_name": "contacts"}}, created]}),
        (
            "POST",
            "/collections/aliases",
            {"actions": [{"create_alias": {**created["create_alias"], "collection_name": "v1"}}]},
        ),
        ("PATCH", "/collections/my%20contacts%2Fv2", {"metadata": PROVENANCE.as_metadata()}),
    ]


def test_a_collection_of_an_older_server_says_nothing_of_its_vectors() -> None:
    asked = store(lambda _: httpx.Response(200, json={"result": {"config": {"params": {}}}}))
    assert asked.provenance("v1") is None


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        (httpx.Response(401, text="Must provide an API key"), "store_refused", "refuses with 401: Must provide an API"),
        (httpx.Response(404, json={"status": {"error": "Not found: x"}}), "store_refused", "with 404: Not found: x"),
        (httpx.Response(503, text=""), "store_unavailable", "fails with 503: Service Unavailable"),
        (httpx.Response(429, text="slow down"), "store_unavailable", "fails with 429: slow down"),
        (httpx.Response(200, text="<html>hello</html>"), "store_refused", "refuses with 200: <html>hello</html>"),
    ],
)
def test_what_is_no_result_is_one_line(answer: httpx.Response, code: str, told: str) -> None:
    with pytest.raises(StoreUnavailable, match=told) as caught:
        store(lambda _: answer).aliases()
    assert caught.value.code == code


def test_a_server_that_is_away_is_one_line() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused", request=request)

    with pytest.raises(StoreUnavailable, match="Qdrant at http://host:6333 cannot be reached: Connection refused"):
        store(refuse).names()


def test_a_key_that_no_header_can_hold_is_not_repeated() -> None:
    address = QdrantAddress.parse("qdrant://host/contacts")
    with pytest.raises(ConfigurationError) as caught, open_alias_store(address, "schl\u00fcssel"):
        pass
    assert "schl" not in str(caught.value)
