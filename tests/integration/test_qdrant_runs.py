"""Re-embedding over Qdrant's REST API: a server that dies, refuses or is old; indexes that come along."""

import uuid
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import models

from producer import ConfigurationError, StoreUnavailable
from producer.bulk.conditions import Conditions
from producer.bulk.order import Order
from producer.bulk.patience import Patience
from producer.bulk.qdrant_sink import QdrantSink
from producer.bulk.qdrant_source import QdrantSource
from producer.bulk.runs import run_order
from producer.provenance import Provenance
from producer.qdrant import QdrantAddress, connect
from producer.settings import ProducerSettings, StoreSettings
from tests.integration.harness.engine import Engine
from tests.integration.harness.ports import free_port
from tests.integration.harness.qdrant_program import QdrantServer
from tests.integration.harness.site import Site
from tests.unit.qdrant_stores import embed, fill, rows, space, totals

NUMBERS = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=False)


class Restarting:
    """A wait that brings the server back, so that no time has to pass."""

    def __init__(self, server: QdrantServer) -> None:
        self.waits = 0
        self._server = server

    def __call__(self, seconds: float) -> None:
        self.waits += 1
        self._server.restart()


def test_a_server_killed_in_the_middle_of_a_write_costs_nothing(tmp_path: Path) -> None:
    server = QdrantServer(tmp_path)
    server.start("--dies-at-upsert", "2")
    wait = Restarting(server)
    sink = QdrantSink(server.address("new"), patience=Patience(sleep=wait))
    sink.check(space(), resuming=False, overwrite=False)
    sink.begin(space())

    mark = sink.write(rows(300))

    assert wait.waits == 1
    assert mark["rows"] == 300
    assert sink.finish(totals(300), embed) == "300 points, 32 of them embedded again: least cosine 1.0000"
    sink.close()
    server.stop()


def test_a_server_killed_between_two_pages_is_waited_for(own_qdrant: QdrantServer) -> None:
    client = own_qdrant.client()
    fill(client, "contacts", {number: {"n": number} for number in range(10)})
    client.close()
    wait = Restarting(own_qdrant)
    source = QdrantSource(own_qdrant.address("contacts"), points_per_page=4, patience=Patience(sleep=wait))
    found = []
    for record in source.records(Conditions()):
        found.append(record.id)
        if record.id == 2:
            own_qdrant.kill()
    assert found == list(range(10))
    assert wait.waits == 1
    source.close()


def test_indexes_distance_and_alias_come_along(qdrant: QdrantServer) -> None:
    old, new, alias = (f"{name}-{uuid.uuid4()}" for name in ("old", "new", "alias"))
    client = qdrant.client()
    fill(client, old, {1: {"text": "a", "user": 7}}, distance=models.Distance.EUCLID, alias=alias)
    text = models.TextIndexParams(type=models.TextIndexType.TEXT, lowercase=True, min_token_len=2)
    client.create_payload_index(old, "user", NUMBERS)
    client.create_payload_index(old, "text", text)
    client.create_payload_index(old, "tag", models.PayloadSchemaType.KEYWORD)

    source = QdrantSource(qdrant.address(alias))
    sink = QdrantSink(qdrant.address(new), source=source)
    sink.check(space(), resuming=False, overwrite=False)
    sink.begin(space())

    info = client.get_collection(new)
    assert info.payload_schema["user"].params == NUMBERS
    assert info.payload_schema["text"].params == text
    assert info.payload_schema["tag"].data_type == models.PayloadSchemaType.KEYWORD
    assert info.config.params.vectors == models.VectorParams(size=4, distance=models.Distance.EUCLID)
    assert (info.config.metadata or {})["headrace"]["alias"] == alias
    for end in (sink, source, client):
        end.close()


@pytest.mark.parametrize("embedded", [True, False])
def test_a_collection_is_re_embedded_into_another_of_its_store(
    solo: Site, qdrant: QdrantServer, tmp_path: Path, embedded: bool
) -> None:
    old, new, alias = (f"{name}-{uuid.uuid4()}" for name in ("old", "new", "alias"))
    url = qdrant.url if not embedded else lambda name: f"qdrant+local:{tmp_path / 'store'}#{name}"
    client = connect(QdrantAddress.parse(url(old)), create=True)
    fill(client, old, {number: {"text": f"text {number}", "user": number % 3} for number in range(100)}, alias=alias)
    store = StoreSettings(state_dir=str(tmp_path))
    settings = ProducerSettings(redis_url=solo.url, namespace=solo.namespace, embed_model=solo.model)
    with Engine(solo), solo.producer() as producer:
        outcome = run_order(Order(source=url(alias), sink=url(new), window=32), settings, store)
        vector = producer.embed("text 42", kind="passage")

    assert (outcome.rows, outcome.rejected) == (100, 0)
    assert outcome.checked == "100 points, 32 of them embedded again: least cosine 1.0000"
    assert client.count(new).count == 100
    point = client.retrieve(new, [42], with_vectors=True)[0]
    assert point.payload == {"text": "text 42", "user": 0}
    np.testing.assert_allclose(point.vector, vector / np.linalg.norm(vector), atol=1e-6)  # type: ignore[arg-type]
    provenance = Provenance.read(client.get_collection(new).config.metadata)
    assert provenance
    assert (provenance.state, provenance.alias, provenance.dimension) == ("complete", alias, 8)
    client.close()


def test_a_server_that_keeps_no_metadata_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    server = QdrantServer(tmp_path)
    server.start("--forgets-metadata")
    sink = QdrantSink(server.address("new"))
    sink.check(space(), resuming=False, overwrite=False)
    with pytest.raises(ConfigurationError, match=r"keeps no metadata of collections: it must be 1\.16 or newer"):
        sink.begin(space())
    client = server.client()
    assert not client.collection_exists("new")
    client.close()
    sink.close()
    server.stop()


@pytest.mark.parametrize("key", ["", "wrong-key"])
def test_a_wrong_key_is_refused_at_once_and_not_shown(tmp_path: Path, key: str) -> None:
    with QdrantServer(tmp_path, api_key="right-key") as server:
        sink = QdrantSink(server.address("new"), key)
        with pytest.raises(StoreUnavailable, match=r"refuses with 401: (Must provide|Invalid API key)") as caught:
            sink.check(space(), resuming=False, overwrite=False)
        sink.close()
    assert caught.value.code == "store_refused"
    assert "-key" not in str(caught.value)


def test_an_unreachable_server_is_one_line_at_once() -> None:
    address = QdrantAddress.parse(f"qdrant://127.0.0.1:{free_port()}/contacts")
    source = QdrantSource(address)
    with pytest.raises(StoreUnavailable, match=r"Qdrant at http://127\.0\.0\.1:\d+ cannot be reached") as caught:
        source.check()
    assert caught.value.code == "store_unavailable"
    assert "\n" not in str(caught.value)


def test_a_store_that_stays_away_ends_the_write_with_its_error(own_qdrant: QdrantServer) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    sink = QdrantSink(own_qdrant.address("new"), patience=Patience(20, clock=lambda: now, sleep=sleep))
    sink.begin(space())
    own_qdrant.kill()
    with pytest.raises(StoreUnavailable, match="cannot be reached"):
        sink.write(rows(1))
    assert 10 < now <= 20
    sink.close()
