"""The stand-in for Qdrant's server: the real client's calls, errors with Qdrant's codes, and what outlives a kill."""

import uuid
from pathlib import Path

import pytest
from qdrant_client import models

from producer import StoreUnavailable
from producer.qdrant import connect, store_errors
from tests.integration.harness.qdrant_program import QdrantServer
from tests.integration.harness.waiting import wait_until

NUMBERS = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=False)
PLANE = models.VectorParams(size=2, distance=models.Distance.COSINE)


def test_the_client_s_calls_work(qdrant: QdrantServer) -> None:
    name, alias = f"calls-{uuid.uuid4()}", f"alias-{uuid.uuid4()}"
    client = qdrant.client()
    assert client.create_collection(name, vectors_config=PLANE, metadata={"a": {"b": 1}})
    client.upsert(name, [models.PointStruct(id=i, vector=[1.0, i], payload={"n": i}) for i in range(5)])
    client.create_payload_index(name, "n", NUMBERS)
    client.create_payload_index(name, "k", models.PayloadSchemaType.KEYWORD)
    client.update_collection(name, metadata={"c": 2})
    point_at = models.CreateAlias(collection_name=name, alias_name=alias)
    assert client.update_collection_aliases([models.CreateAliasOperation(create_alias=point_at)])

    info = client.get_collection(alias)
    assert info.config.metadata == {"a": {"b": 1}, "c": 2}
    assert info.config.params.vectors == PLANE
    assert info.payload_schema["n"].params == NUMBERS
    assert info.payload_schema["k"].data_type == models.PayloadSchemaType.KEYWORD
    assert client.count(alias).count == 5
    assert [found.id for found in client.scroll(alias, limit=2, offset=1)[0]] == [1, 2]
    assert client.scroll(alias, limit=2, offset=1)[1] == 3
    assert client.retrieve(name, [3], with_vectors=True)[0].vector == pytest.approx([0.316, 0.949], abs=0.001)
    assert client.query_points(alias, query=[0.0, 1.0], limit=1, with_payload=True).points[0].payload == {"n": 4}
    assert alias in {each.alias_name for each in client.get_aliases().aliases}
    client.delete(name, models.PointIdsList(points=[0]))
    assert client.count(name).count == 4
    assert client.delete_collection(name)
    assert not client.collection_exists(name)
    client.close()


def test_errors_have_qdrant_s_codes(qdrant: QdrantServer) -> None:
    client = qdrant.client()
    missing = r"refuses with 404: Not found: Collection `none` doesn't exist!"
    with pytest.raises(StoreUnavailable, match=missing), store_errors("here"):
        client.get_collection("none")
    name = f"errors-{uuid.uuid4()}"
    client.create_collection(name, vectors_config=PLANE)
    with pytest.raises(StoreUnavailable, match="refuses with 409"), store_errors("here"):
        client.create_collection(name, vectors_config=PLANE)
    wrong = r"refuses with 400: Wrong input: Vector dimension"
    with pytest.raises(StoreUnavailable, match=wrong), store_errors("here"):
        client.upsert(name, [models.PointStruct(id=1, vector=[1.0, 2.0, 3.0])])
    client.close()


def test_keys_are_asked_for_and_a_kill_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    with QdrantServer(tmp_path, api_key="right") as server:
        client = server.client()
        client.create_collection("kept", vectors_config=PLANE, metadata={"a": 1})
        client.upsert("kept", [models.PointStruct(id=i, vector=[1.0, i]) for i in range(5)])
        client.create_payload_index("kept", "n", NUMBERS)
        for key in ("", "wrong"):
            with pytest.raises(StoreUnavailable, match="refuses with 401") as caught, store_errors("here"):
                connect(server.address("kept"), key).get_collections()
            assert caught.value.code == "store_refused"
        server.kill()
        with pytest.raises(StoreUnavailable, match="cannot be reached"), store_errors("here"):
            client.get_collections()
        server.start("--dies-at-upsert", "1")
        with pytest.raises(StoreUnavailable, match="cannot be reached"), store_errors("here"):
            client.upsert("kept", [models.PointStruct(id=i, vector=[1.0, i]) for i in range(10, 14)])
        wait_until(lambda: not server.running, what="its end")
        server.restart()
        assert client.count("kept").count == 7
        assert client.get_collection("kept").config.metadata == {"a": 1}
        assert list(client.get_collection("kept").payload_schema) == ["n"]
        client.close()
