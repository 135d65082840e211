"""A collection's way to another model, and what gets in between: kills, writers, other moves of the alias."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from qdrant_client import QdrantClient, models

from producer import ConfigurationError
from producer.bulk.aliases import carry_out, lost, plan_rollback, plan_switch
from producer.bulk.collections import Collections, open_collections
from producer.bulk.qdrant_sink import QdrantSink
from producer.bulk.qdrant_source import QdrantSource
from tests.unit.qdrant_stores import address_in, embed, fill, open_store, point_at, rows, space, totals

POINTS = 5


class Killed(BaseException):
    """The end of the process."""


class Migration:
    """The alias contacts at v1, and a run from it to v2 that has written everything and is not finished."""

    def __init__(self, folder: Path, client: QdrantClient, collections: Collections) -> None:
        self.folder, self.client, self.collections = folder, client, collections
        self._source = QdrantSource(address_in(folder, "contacts"))
        self.sink = QdrantSink(address_in(folder, "v2"), source=self._source)
        self.sink.begin(space())
        self.mark = self.sink.write(rows(POINTS))

    def finish(self, *, rejected: int = 0) -> str:
        return self.sink.finish(replace(totals(POINTS), rejected=rejected), embed)

    def switch(self, to: str = "", *, partial: bool = False) -> str:
        move = plan_switch(self.collections, "contacts", to, partial=partial)
        carry_out(self.collections, move)
        return self.collections.aliases()["contacts"]

    def rollback(self) -> str:
        carry_out(self.collections, plan_rollback(self.collections, "contacts"))
        return self.collections.aliases()["contacts"]

    def refused(self, reason: str, to: str = "") -> None:
        """Check that a switch is refused for this reason, and moves nothing."""
        before = self.collections.aliases()
        with pytest.raises(ConfigurationError, match=reason):
            self.switch(to)
        assert self.collections.aliases() == before

    def add(self, name: str, *numbers: int) -> None:
        """Write points as an application does."""
        points = [models.PointStruct(id=n, vector=[1.0] * 4, payload={"text": f"text {n}"}) for n in numbers]
        self.client.upsert(name, points)

    def migrate(self, to: str) -> None:
        """A whole further run, from the alias."""
        source = QdrantSource(address_in(self.folder, "contacts"))
        sink = QdrantSink(address_in(self.folder, to), source=source)
        sink.begin(space(run=f"to {to}"))
        sink.write(rows(POINTS))
        sink.finish(totals(POINTS), embed)
        sink.close()
        source.close()

    def close(self) -> None:
        self.sink.close()
        self._source.close()


@pytest.fixture
def migration(tmp_path: Path) -> Iterator[Migration]:
    client = open_store(tmp_path)
    fill(client, "v1", {row.record.id: dict(row.record.fields) for row in rows(POINTS)}, alias="contacts")
    with open_collections(address_in(tmp_path), "") as collections:
        migration = Migration(tmp_path, client, collections)
        yield migration
        migration.close()
    client.close()


def test_what_is_verified_and_not_yet_complete_is_not_switched_to(
    migration: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Collections, "describe", killed)
        with pytest.raises(Killed):
            migration.finish()
    migration.refused("name one with --to; v2 is not complete yet")
    migration.refused("v2 is not complete: .* resume that run", "v2")

    migration.sink.check(space(), resuming=True, overwrite=False)
    migration.sink.begin(space(), migration.mark)
    assert migration.finish() == "5 points, 5 of them embedded again: least cosine 1.0000"
    assert migration.switch() == "v2"


def test_a_run_killed_just_after_its_collection_was_complete_is_told_so(migration: Migration) -> None:
    migration.finish()
    migration.switch()
    with pytest.raises(ConfigurationError, match="the alias contacts serves v2: this run is complete"):
        migration.sink.check(space(), resuming=True, overwrite=False)
    with pytest.raises(ConfigurationError, match="serves v2: write to a collection of another name"):
        migration.sink.check(space(run="another"), resuming=True, overwrite=False)
    migration.rollback()
    migration.sink.check(space(), resuming=True, overwrite=False)


def test_points_that_come_to_the_source_meanwhile_are_told_and_hold_the_switch(migration: Migration) -> None:
    migration.add("v1", 100, 101)
    assert migration.finish().endswith("; meanwhile v1 has got 2 more points: v2 lacks them, begin anew to have them")
    migration.refused("v2 lacks 2 points of v1, which came after they had been read, or were deleted: .*--partial")
    assert migration.switch(partial=True) == "v2"


def test_points_that_go_from_the_source_meanwhile_are_told(migration: Migration) -> None:
    migration.client.delete("v1", models.PointIdsList(points=[3]))
    assert migration.finish().endswith("; meanwhile v1 has got 1 points fewer: v2 still holds what is gone there")
    assert migration.switch() == "v2"


def test_what_was_rejected_does_not_hold_the_switch(migration: Migration) -> None:
    migration.add("v1", 100)
    assert migration.finish(rejected=1).endswith("least cosine 1.0000")
    assert migration.switch() == "v2"


def test_points_deleted_from_the_new_collection_hold_the_switch(migration: Migration) -> None:
    migration.finish()
    migration.client.delete("v2", models.PointIdsList(points=[3]))
    migration.refused("v2 lacks 1 points of v1")


def test_an_alias_that_moves_during_the_run_is_not_moved_on_by_itself(migration: Migration) -> None:
    fill(migration.client, "other", {1: {}})
    point_at(migration.client, "contacts", "other")
    migration.finish()
    migration.refused(
        "no complete collection was filled for contacts from other: name one with --to; "
        "v2 was filled when contacts pointed elsewhere"
    )
    assert migration.switch("v2") == "v2"


def test_a_switch_that_is_repeated_does_not_go_back(migration: Migration) -> None:
    migration.finish()
    migration.switch()
    migration.refused("no complete collection was filled for contacts from v2: name one with --to$")
    migration.migrate("v3")
    assert migration.switch() == "v3"
    migration.refused("filled for contacts from v3: name one with --to; v2 was filled when contacts pointed elsewhere")


def test_of_two_migrations_in_a_row_the_second_is_rolled_back(migration: Migration) -> None:
    migration.finish()
    migration.switch()
    migration.migrate("v3")
    migration.switch()
    assert [migration.rollback(), migration.rollback(), migration.rollback()] == ["v2", "v3", "v2"]
    migration.refused("v1 does not say whose vectors it holds", "v1")
    assert migration.switch() == "v3"


def test_points_that_came_after_the_switch_do_not_hold_the_rollback_and_are_told(migration: Migration) -> None:
    migration.finish()
    migration.switch()
    migration.add("v2", 100, 101, 102)
    move = plan_rollback(migration.collections, "contacts")
    carry_out(migration.collections, move)
    assert lost(migration.collections, move) == 3
    assert migration.switch() == "v2"
