"""Whose vectors a search compares: the model that filled the collection, found behind an alias that moves meanwhile."""

from collections.abc import Iterator
from typing import Any

import pytest
from qdrant_client import QdrantClient

from producer.errors import ConfigurationError, StoreUnavailable
from producer.provenance import Provenance
from producer.search_effects import Embed, Fetch, Nearest
from producer.search_flow import LOCATION_S
from tests.unit.searching import SearchRig, contacts, fill, make_collection, point_alias, provenance, qdrant

OTHER = "another"


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    """The alias stands for blue, of our model in 4 dimensions; green is of another model in 6."""
    with qdrant() as client:
        make_collection(client, "blue", origin=provenance("offline"))
        fill(client, "blue", contacts())
        make_collection(client, "green", dimension=6, origin=provenance(OTHER, dimension=6, template="green {text}"))
        fill(client, "green", contacts(), dimension=6)
        point_alias(client, "blue")
        yield client


@pytest.fixture
def rig(client: QdrantClient) -> SearchRig:
    rig = SearchRig(client)
    rig.dimensions[OTHER] = 6
    return rig


def used(rig: SearchRig) -> set[tuple[str, str]]:
    """The models that embedded and the collections that were searched, in pairs."""
    models = [effect.model for effect in rig.performed if isinstance(effect, Embed)]
    collections = [effect.collection.name for effect in rig.performed if isinstance(effect, Nearest)]
    rig.performed.clear()
    return set(zip(models, collections, strict=True))


def test_a_move_is_seen_within_half_a_second(client: QdrantClient, rig: SearchRig) -> None:
    assert rig.search().collection == "blue"
    point_alias(client, "green")
    rig.clock.advance(LOCATION_S)

    found = rig.search()

    assert (found.collection, found.model) == ("green", OTHER)
    assert found.results[0].text.startswith("green ")
    assert used(rig) == {("offline", "blue"), (OTHER, "green")}
    point_alias(client, "blue")
    rig.clock.advance(LOCATION_S)
    assert rig.search().collection == "blue", "and so is a rollback"


def test_where_the_alias_points_is_asked_for_once_in_half_a_second(rig: SearchRig) -> None:
    for _ in range(3):
        rig.search()

    assert rig.kinds().count("Locate") == 1
    assert rig.search().timings_ms.resolve is None


@pytest.mark.parametrize("moment", [Embed, Nearest])
def test_a_search_stays_in_its_collection_when_the_alias_moves(
    client: QdrantClient, rig: SearchRig, moment: type
) -> None:
    rig.before[moment] = lambda: point_alias(client, "green")

    found = rig.search()

    assert (found.collection, found.model) == ("blue", "offline")
    assert used(rig) == {("offline", "blue")}


def move_and_delete(client: QdrantClient) -> None:
    point_alias(client, "green")
    client.delete_collection("blue")


@pytest.mark.parametrize("moment", [Nearest, Fetch])
def test_a_collection_that_is_deleted_meanwhile_is_looked_for_anew(
    client: QdrantClient, rig: SearchRig, moment: type
) -> None:
    if moment is Fetch:
        rig.search()
    rig.before[moment] = lambda: move_and_delete(client)

    found = rig.search()

    assert (found.collection, found.model, found.cached) == ("green", OTHER, False)
    assert len(found.results) == 4


def test_a_collection_that_is_gone_is_looked_for_once(client: QdrantClient, rig: SearchRig) -> None:
    rig.search()
    client.delete_collection("blue")

    with pytest.raises(StoreUnavailable, match="no collection") as caught:
        rig.search(query="new")
    assert caught.value.code == "no_such_collection"
    assert rig.kinds().count("Locate") == 2


def test_results_of_both_collections_are_cached_apart(client: QdrantClient, rig: SearchRig) -> None:
    rig.search()
    point_alias(client, "green")
    rig.clock.advance(LOCATION_S + 0.1)

    assert not rig.search().cached
    again = rig.search()
    assert (again.cached, again.collection, again.model) == (True, "green", OTHER)


def test_without_provenance_it_is_our_own_model(client: QdrantClient, rig: SearchRig) -> None:
    make_collection(client, "bare")
    fill(client, "bare", contacts())
    point_alias(client, "bare")

    found = rig.search()

    assert (found.collection, found.model) == ("bare", "offline")


@pytest.mark.parametrize(
    "change",
    [{"model": None}, {"tag": 7}, {"template": ["{text}"]}, {"dimension": "4"}, {"previous": []}, {"partial": 1}],
)
def test_metadata_of_another_make_is_no_provenance(change: dict[str, Any]) -> None:
    said = provenance("offline").as_metadata()

    assert Provenance.read(said) == provenance("offline")
    assert Provenance.read({"headrace": {**said["headrace"], "of a later release": 1}}) == provenance("offline")
    assert Provenance.read({"headrace": {**said["headrace"], **change}}) is None


def test_another_name_of_our_own_model_needs_no_other_producer(client: QdrantClient) -> None:
    make_collection(client, "there", origin=provenance("/there/model"))
    fill(client, "there", contacts())
    point_alias(client, "there")

    assert SearchRig(client, embed_model="/here/model").search().model == "/here/model"


def refused(client: QdrantClient, **settings: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        SearchRig(client, **settings).search()
    return str(caught.value)


def test_a_tag_that_is_another_here_is_refused(client: QdrantClient) -> None:
    make_collection(client, "old", origin=provenance("offline", tag="offline-00000000"))
    point_alias(client, "old")

    line = refused(client)

    assert "'old' holds vectors of offline-00000000" in line
    assert "\n" not in line


def test_vectors_of_another_length_are_refused(client: QdrantClient) -> None:
    make_collection(client, "long", dimension=5)
    point_alias(client, "long")

    assert "'long' holds vectors of 5 dimensions, 'offline' makes 4" in refused(client)


def test_a_template_is_refused_at_once(client: QdrantClient) -> None:
    with pytest.raises(ConfigurationError, match="names no field"):
        SearchRig(client, text="no field")
