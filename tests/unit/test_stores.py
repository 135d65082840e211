"""The stores of a search: whose points they find, what they say of a collection, their errors, and what they close."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from producer import AsyncQdrantStore, ConfigurationError, InvalidRequest, QdrantStore, StoreUnavailable
from producer.qdrant_search import Collection, described, query_arguments
from producer.stores import _after_fork_in_child
from tests.unit.searching import fill, make_collection, point_alias, provenance, qdrant

VECTOR = np.ones(4, dtype=np.float32)
BLUE = Collection(name="blue", dimension=4)


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    with qdrant() as client:
        make_collection(client, "blue", origin=provenance("offline"))
        point_alias(client, "blue")
        owners = {1: 7, 2: "7", 3: 8, 4: "07", 5: "x:7", 6: None, 7: [7], 8: -7}
        payloads = {point: _payload(owner) for point, owner in owners.items()}
        fill(client, "blue", {**payloads, 9: {}, 10: {"user_id": True, "meta": [{"owner": 7}]}, 11: {"meta.owner": 7}})
        yield client


def _payload(owner: Any) -> dict[str, Any]:
    return {"user_id": owner, "meta": {"owner": owner}, "teams": [{"owner": "another"}, {"owner": owner}]}


def found(client: QdrantClient, user: str | int, **options: Any) -> list[str | int]:
    """The points that a search finds, which are also those of all points that it may fetch."""
    store = QdrantStore.of(client, "blue", **options)
    ids = [candidate.id for candidate in store.nearest(BLUE, VECTOR, user, 10)]
    assert sorted(store.fetch(BLUE, range(1, 12), user)) == sorted(ids)
    return ids


@pytest.mark.parametrize(
    ("user", "points"),
    [
        (7, [1, 2, 7]),
        ("7", [1, 2, 7]),
        ("07", [4]),
        ("x:7", [5]),
        (8, [3]),
        (-7, [8]),
        ("-7", [8]),
        ("-07", []),
        ("None", []),
        (2**63, []),
        (str(2**64), []),
        ("9" * 5000, []),
        ("\u0667", []),
    ],
)
def test_a_user_finds_the_own_points_alone(client: QdrantClient, user: str | int, points: list[int]) -> None:
    assert found(client, user) == points
    assert found(client, user, user_field="meta.owner") == points
    assert found(client, user, user_field="teams[].owner") == points
    assert found(client, user, user_field='"meta"."owner"') == points
    assert found(client, user, user_field="another") == []


@pytest.mark.parametrize(
    ("index", "user", "forms"),
    [
        ("", 7, {"7", 7}),
        ("integer", 7, {7}),
        ("integer", "7", {7}),
        ("integer", "x", {"x"}),
        ("keyword", 7, {"7"}),
        ("uuid", "x", {"x"}),
        ("text", 7, {"7", 7}),
    ],
)
def test_a_payload_index_is_asked_for_what_it_holds_alone(index: str, user: str | int, forms: set[str | int]) -> None:
    collection = Collection(name="blue", dimension=4, user_index=index)

    condition = query_arguments(collection, VECTOR, "user_id", user, 10)["query_filter"]

    assert {one.match.value for one in condition.should} == forms
    assert {type(one.match.value) for one in condition.should} == {type(form) for form in forms}


def test_the_index_on_the_users_field_is_noticed(client: QdrantClient) -> None:
    info = client.get_collection("blue")
    info.payload_schema = {
        "user_id": models.PayloadIndexInfo(data_type=models.PayloadSchemaType.INTEGER, points=9),
        "text": models.PayloadIndexInfo(data_type=models.PayloadSchemaType.KEYWORD, points=9),
    }

    assert described("blue", info, "user_id").user_index == "integer"
    assert described("blue", info, "owner").user_index == ""


def test_only_the_users_points_are_fetched(client: QdrantClient) -> None:
    store = QdrantStore.of(client, "blue")

    payloads = store.fetch(BLUE, [1, 2, 3, 99], "7")

    assert {point: payload["user_id"] for point, payload in payloads.items()} == {1: 7, 2: "7"}


def test_ids_that_are_uuids_are_strings(client: QdrantClient) -> None:
    name = "0b1b1f4e-9d5c-4b3e-8a51-6a8f2f6f7c11"
    client.upsert("blue", [models.PointStruct(id=name, vector=[9999.0] * 4, payload={"user_id": 3})])
    store = QdrantStore.of(client, "blue")

    assert [candidate.id for candidate in store.nearest(BLUE, VECTOR, 3, 10)] == [name]
    assert list(store.fetch(BLUE, [name], 3)) == [name]


def test_a_collection_is_found_by_its_name_and_behind_its_alias(client: QdrantClient) -> None:
    for name in ("blue", "contacts"):
        located = QdrantStore.of(client, name).locate()
        assert (located.name, located.dimension, located.provenance) == ("blue", 4, provenance("offline"))


def test_one_named_vector_will_do_and_two_will_not(client: QdrantClient) -> None:
    params = models.VectorParams(size=4, distance=models.Distance.DOT)
    client.create_collection("one", {"text": params})
    client.create_collection("two", {"text": params, "image": params})
    client.upsert("one", [models.PointStruct(id=1, vector={"text": [1.0] * 4}, payload={"user_id": 1})])
    store = QdrantStore.of(client, "one")

    assert [candidate.id for candidate in store.nearest(store.locate(), VECTOR, 1, 10)] == [1]
    with pytest.raises(ConfigurationError, match="'two' has 2 vectors a point"):
        QdrantStore.of(client, "two").locate()


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.locate(),
        lambda store: store.nearest(Collection(name="gone", dimension=4), VECTOR, 1, 10),
        lambda store: store.fetch(Collection(name="gone", dimension=4), [1], 1),
    ],
)
def test_a_collection_that_is_not_there_has_a_code_of_its_own(
    client: QdrantClient, ask: Callable[[QdrantStore], object]
) -> None:
    with pytest.raises(StoreUnavailable, match="there is no collection 'gone'") as caught:
        ask(QdrantStore.of(client, "gone"))
    assert caught.value.code == "no_such_collection"


def test_an_alias_whose_collection_is_being_deleted_is_not_there(client: QdrantClient) -> None:
    """The embedded store forgets the collection first."""
    client._client.aliases["half"] = "gone"  # type: ignore[attr-defined]

    with pytest.raises(StoreUnavailable) as caught:
        QdrantStore.of(client, "half").locate()
    assert caught.value.code == "no_such_collection"


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (UnexpectedResponse(404, "Not Found", b"", httpx.Headers()), "no_such_collection"),
        (UnexpectedResponse(403, "Forbidden", b"", httpx.Headers()), "store_refused"),
        (UnexpectedResponse(500, "Error", b"", httpx.Headers()), "store_unavailable"),
        (ResponseHandlingException(OSError("no route")), "store_unavailable"),
    ],
)
def test_what_a_server_answers_is_mapped(
    client: QdrantClient, monkeypatch: pytest.MonkeyPatch, raised: Exception, code: str
) -> None:
    def fail(**_: object) -> object:
        raise raised

    monkeypatch.setattr(client, "query_points", fail)

    with pytest.raises(StoreUnavailable) as caught:
        QdrantStore.of(client, "blue").nearest(BLUE, VECTOR, 1, 10)
    assert caught.value.code == code


def test_nothing_is_opened_before_the_first_call_and_close_closes_it(tmp_path: Path) -> None:
    url = f"qdrant+local:{tmp_path}/store#blue"
    with QdrantStore(url) as store, pytest.raises(ConfigurationError, match="no Qdrant store"):
        store.locate()
    client = QdrantClient(path=str(tmp_path / "store"))
    make_collection(client, "blue")
    client.close()

    for _ in range(2):  # an embedded store opens for one at a time
        with QdrantStore(url) as store:
            assert store.locate().name == "blue"
            assert store.place == str(tmp_path / "store")

    with pytest.raises(InvalidRequest, match="closed"):
        store.locate()


def test_a_client_of_the_applications_stays_open(client: QdrantClient) -> None:
    with QdrantStore.of(client, "blue") as store:
        store.locate()

    assert client.get_collections().collections


def test_a_server_is_asked_over_a_childs_own_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    class Client:
        def __init__(self, **arguments: Any) -> None:
            made.append(arguments)

        def close(self) -> None:
            raise AssertionError("its lock may be held for ever")

    monkeypatch.setattr("qdrant_client.QdrantClient", Client)
    store = QdrantStore("qdrant://host/name", timeout_s=1.5)
    parents = store._open()
    store._opening.acquire()  # by a thread that the child does not have

    _after_fork_in_child()

    assert store._open() is not parents
    assert [arguments["timeout"] for arguments in made] == [2, 2]


def test_stores_of_an_applications_clients_tell_their_places_apart(tmp_path: Path) -> None:
    server: dict[str, Any] = {"check_compatibility": False}
    makers: dict[str, Callable[[], Any]] = {
        "http://one:6333": lambda: QdrantClient(url="http://one:6333", **server),
        "two:7000": lambda: QdrantClient(host="two", port=7000, **server),
        "three": lambda: AsyncQdrantClient(url="https://user:secret@three", **server),
        "localhost": lambda: QdrantClient(**server),
        ":memory:": lambda: QdrantClient(":memory:"),
        str(tmp_path): lambda: QdrantClient(path=str(tmp_path)),
    }
    for place, make in makers.items():
        client = make()
        store = (QdrantStore if isinstance(client, QdrantClient) else AsyncQdrantStore).of(client, "blue")
        assert store.place == place
        asyncio.run(client.close()) if isinstance(client, AsyncQdrantClient) else client.close()


BAD_URLS = "http://host/name qdrant://host qdrant://a..b/name qdrant+local:folder qdrant+local:~no-one/a#name"


@pytest.mark.parametrize("url", [*BAD_URLS.split(), "qdrant://a host/name"])
def test_a_url_is_refused_at_once(url: str) -> None:
    for cls in (QdrantStore, AsyncQdrantStore):
        with pytest.raises(ConfigurationError):
            cls(url)


@pytest.mark.parametrize("field", ["", "a b", "a.", ".a", "a[0]", "[]", '"a', 'a"b"', "a\udcff", '"a\udcff"', "a\n"])
def test_a_field_must_be_a_path(client: QdrantClient, field: str) -> None:
    with pytest.raises(ConfigurationError, match="user_field"):
        QdrantStore.of(client, "blue", user_field=field)


def test_both_stores_have_the_same_calls() -> None:
    for name in ("__init__", "of", "locate", "nearest", "fetch", "close"):
        one, other = (inspect.signature(getattr(cls, name)) for cls in (QdrantStore, AsyncQdrantStore))
        assert list(one.parameters) == list(other.parameters), name
        assert [each.default for each in one.parameters.values()] == [
            each.default for each in other.parameters.values()
        ]


def test_the_async_store_does_the_same(tmp_path: Path) -> None:
    path = str(tmp_path / "store")
    client = QdrantClient(path=path)
    make_collection(client, "blue")
    fill(client, "blue", {1: {"user_id": 7}, 2: {"user_id": 8}})
    client.close()

    async def scenario() -> None:
        async with AsyncQdrantStore(f"qdrant+local:{path}#blue") as store:
            located = await store.locate()
            assert [candidate.id for candidate in await store.nearest(located, VECTOR, "7", 10)] == [1]
            assert await store.fetch(located, [1, 2], 7) == {1: {"user_id": 7}}
        with pytest.raises(InvalidRequest, match="closed"):
            await store.locate()
        own = AsyncQdrantClient(path=path)
        async with AsyncQdrantStore.of(own, "gone") as store:
            with pytest.raises(StoreUnavailable, match="no collection 'gone'"):
                await store.locate()
        assert await own.collection_exists("blue")
        await own.close()

    asyncio.run(scenario())
