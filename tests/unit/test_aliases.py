"""Aliases: what `switch` chooses and refuses, what `rollback` goes back to, and that one operation moves them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from producer import ConfigurationError
from producer.bulk.aliases import Move, carry_out, plan_rollback, plan_switch
from producer.bulk.collections import Collections, open_collections
from producer.provenance import Provenance
from tests.unit.qdrant_stores import address_in, fill, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[QdrantClient]:
    """The alias contacts at v1, which no run has filled, and v2, which one has."""
    client = open_store(tmp_path)
    fill(client, "v1", {1: {}}, alias="contacts")
    filled(client, "v2")
    yield client
    client.close()


@pytest.fixture
def collections(store: QdrantClient, tmp_path: Path) -> Iterator[Collections]:
    with open_collections(address_in(tmp_path), "") as opened:
        yield opened


def filled(client: QdrantClient, name: str, points: int = 2, **more: Any) -> None:
    """Make a collection as a run leaves it."""
    fill(client, name, {number: {} for number in range(points)})
    values: dict[str, Any] = {"state": "complete", "alias": "contacts", "replaces": "v1", **more}
    provenance = Provenance(
        model="fake", tag="fake-00000000", dimension=4, kind="passage", template="{text}", source="s", **values
    )
    client.update_collection(name, metadata=provenance.as_metadata())


def switch(collections: Collections, alias: str = "contacts", to: str = "", **options: bool) -> Move:
    move = plan_switch(collections, alias, to, **options)
    carry_out(collections, move)
    return move


def rollback(collections: Collections, alias: str = "contacts") -> Move:
    move = plan_rollback(collections, alias)
    carry_out(collections, move)
    return move


def test_an_alias_goes_to_what_was_filled_for_it_and_back(collections: Collections) -> None:
    move = switch(collections)
    assert (move.target, move.current) == ("v2", "v1")
    assert collections.aliases() == {"contacts": "v2"}

    with pytest.raises(ConfigurationError, match="no complete collection was filled for contacts"):
        plan_switch(collections, "contacts")

    move = rollback(collections)
    assert (move.target, move.current) == ("v1", "v2")
    assert collections.aliases() == {"contacts": "v1"}


def test_planning_changes_nothing(collections: Collections) -> None:
    plan_switch(collections, "contacts")
    assert collections.aliases() == {"contacts": "v1"}
    found = collections.layout("v2").provenance
    assert found
    assert not found.previous


def test_a_rollback_undoes_a_rollback(store: QdrantClient, collections: Collections) -> None:
    switch(collections)
    filled(store, "v3")
    switch(collections, to="v3")
    for expected in ("v2", "v3", "v2"):
        rollback(collections)
        assert collections.aliases() == {"contacts": expected}


def test_what_no_run_filled_cannot_be_rolled_back_from(collections: Collections) -> None:
    switch(collections)
    rollback(collections)
    with pytest.raises(ConfigurationError, match="v1 does not say where contacts pointed before"):
        plan_rollback(collections, "contacts")
    assert switch(collections).target == "v2"


def test_each_alias_of_a_collection_goes_back_to_where_it_was(store: QdrantClient, collections: Collections) -> None:
    fill(store, "w1", {1: {}}, alias="people")
    switch(collections)
    switch(collections, "people", "v2")
    assert rollback(collections, "contacts").target == "v1"
    assert rollback(collections, "people").target == "w1"


def test_the_note_comes_before_the_move_and_the_move_is_one_operation(
    store: QdrantClient, collections: Collections, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[Any]] = []

    def fail(change_aliases_operations: list[Any], **_: Any) -> bool:
        found = collections.layout("v2").provenance
        assert found
        assert found.previous == {"contacts": "v1"}
        calls.append(change_aliases_operations)
        raise OSError("the store goes away")

    monkeypatch.setattr(collections.client, "update_collection_aliases", fail, raising=False)
    with pytest.raises(Exception, match="the store goes away"):
        switch(collections)
    assert [type(each) for each in calls[0]] == [models.DeleteAliasOperation, models.CreateAliasOperation]
    assert collections.aliases() == {"contacts": "v1"}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"state": "filling"}, "v3 is not complete: the run that fills it"),
        ({"partial": True}, "v3 holds a part of the data only: .* --partial"),
        ({"points": 0}, "v3 has no points"),
    ],
)
def test_a_target_that_is_not_whole_is_refused(
    store: QdrantClient, collections: Collections, more: dict[str, Any], reason: str
) -> None:
    filled(store, "v3", **more)
    with pytest.raises(ConfigurationError, match=reason):
        plan_switch(collections, "contacts", "v3")
    assert collections.aliases() == {"contacts": "v1"}


def test_a_part_is_switched_to_when_told(store: QdrantClient, collections: Collections) -> None:
    filled(store, "v3", partial=True)
    assert plan_switch(collections, "contacts", "v3", partial=True).target == "v3"


@pytest.mark.parametrize(
    ("alias", "to", "reason"),
    [
        ("none", "v2", r"no alias 'none': there are contacts; to make it, --create"),
        ("v1", "v2", r"v1 is a collection, and only an alias can be moved: .*--to v1 --create"),
        ("contacts", "v9", r"no collection 'v9': there are v0, v1, v2"),
        ("contacts", "v1", r"contacts points at v1 already"),
        ("contacts", "v0", r"v0 does not say whose vectors it holds.*contacts stays at v1"),
        ("contacts", "contacts", r"no collection 'contacts'"),
    ],
)
def test_what_cannot_be_is_one_line(
    store: QdrantClient, collections: Collections, alias: str, to: str, reason: str
) -> None:
    fill(store, "v0", {1: {}})
    with pytest.raises(ConfigurationError, match=reason):
        plan_switch(collections, alias, to)


def test_none_or_several_to_choose_from_are_told(store: QdrantClient, collections: Collections) -> None:
    filled(store, "v3")
    with pytest.raises(ConfigurationError, match="contacts can go to v2, v3: name one with --to"):
        plan_switch(collections, "contacts")
    for name in ("v2", "v3"):
        store.delete_collection(name)
    with pytest.raises(ConfigurationError, match=r"was filled for contacts from v1: name one with --to$"):
        plan_switch(collections, "contacts")
    filled(store, "v4", state="filling")
    with pytest.raises(ConfigurationError, match="name one with --to; v4 is not complete yet"):
        plan_switch(collections, "contacts")


def test_an_alias_can_be_made_even_for_what_no_run_filled(store: QdrantClient, collections: Collections) -> None:
    assert switch(collections, "people", "v1", create=True).current == ""
    assert collections.aliases() == {"contacts": "v1", "people": "v1"}
    filled(store, "v3", state="filling")
    with pytest.raises(ConfigurationError, match="v3 is not complete"):
        plan_switch(collections, "third", "v3", create=True)


def test_a_rollback_needs_somewhere_to_go(store: QdrantClient, collections: Collections) -> None:
    with pytest.raises(ConfigurationError, match="no alias 'none': there are contacts"):
        plan_rollback(collections, "none")
    switch(collections)
    filled(store, "v3")
    switch(collections, to="v3")
    store.update_collection("v2", metadata={"headrace": {**_metadata(store, "v2"), "state": "filling"}})
    with pytest.raises(ConfigurationError, match="v2 is not complete"):
        plan_rollback(collections, "contacts")
    store.delete_collection("v2")
    with pytest.raises(ConfigurationError, match="v2, where contacts pointed before, is gone"):
        plan_rollback(collections, "contacts")


def _metadata(store: QdrantClient, name: str) -> dict[str, Any]:
    return (store.get_collection(name).config.metadata or {})["headrace"]  # type: ignore[no-any-return]
