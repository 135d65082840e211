"""Collections as sinks: what may be written to, what a run leaves, what it takes up, and what verification finds."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from producer import ConfigurationError, VerificationFailed
from producer.bulk.ends import Space
from producer.bulk.qdrant_sink import QdrantSink
from producer.bulk.qdrant_source import QdrantSource
from producer.provenance import Provenance
from tests.unit.qdrant_stores import (
    address_in,
    embed,
    embedded,
    fill,
    open_store,
    point_at,
    rows,
    run,
    space,
    totals,
)

COSINE = models.Distance.COSINE


@pytest.fixture
def store(tmp_path: Path) -> Iterator[QdrantClient]:
    client = open_store(tmp_path)
    yield client
    client.close()


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[QdrantSink]:
    sink = QdrantSink(address_in(tmp_path, "new"))
    yield sink
    sink.close()


def provenance_of(store: QdrantClient, name: str) -> Provenance:
    found = Provenance.read(store.get_collection(name).config.metadata)
    assert found
    return found


def test_a_run_fills_checks_and_says_so(store: QdrantClient, tmp_path: Path) -> None:
    told = run(address_in(tmp_path, "new"), rows(300))

    assert told == "300 points, 32 of them embedded again: least cosine 1.0000"
    assert store.count("new").count == 300
    point = store.retrieve("new", [7], with_vectors=True)[0]
    assert point.payload == {"text": "text 7"}
    vector = embed(["text 7"])[0]
    np.testing.assert_allclose(point.vector, vector / np.linalg.norm(vector), rtol=1e-6)  # type: ignore[arg-type]
    assert provenance_of(store, "new") == Provenance(
        model="fake",
        tag="fake-00000000",
        dimension=4,
        kind="passage",
        template="{text}",
        source="s",
        state="complete",
        run="run-1",
    )


def test_a_folder_is_made_by_the_first_run(tmp_path: Path) -> None:
    sink = QdrantSink(address_in(tmp_path / "a" / "b", "new"))
    sink.check(space(), resuming=False, overwrite=False)
    assert not list(tmp_path.iterdir())
    sink.begin(space())
    sink.close()
    assert (tmp_path / "a" / "b" / "meta.json").exists()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sink = QdrantSink(address_in(tmp_path / "file" / "store", "new"))
    with pytest.raises(ConfigurationError, match=r"cannot be made: .* is no folder that can be written"):
        sink.check(space(), resuming=False, overwrite=False)


def test_what_serves_is_never_written_to(store: QdrantClient, tmp_path: Path) -> None:
    fill(store, "v1", {1: {}}, alias="contacts")
    for name, reason in (("contacts", "is an alias .*reembed switch contacts"), ("v1", "the alias contacts serves v1")):
        sink = QdrantSink(address_in(tmp_path, name))
        for resuming, overwrite in ((False, False), (True, False), (False, True)):
            with pytest.raises(ConfigurationError, match=reason):
                sink.check(space(), resuming=resuming, overwrite=overwrite)
        sink.close()
    assert store.count("v1").count == 1


def test_an_alias_that_moves_between_check_and_begin_is_seen(store: QdrantClient, sink: QdrantSink) -> None:
    fill(store, "new", {1: {}})
    sink.check(space(), resuming=False, overwrite=True)
    point_at(store, "contacts", "new")
    with pytest.raises(ConfigurationError, match="serves new"):
        sink.begin(space())
    assert store.count("new").count == 1


def test_the_source_is_never_its_own_sink(store: QdrantClient, tmp_path: Path) -> None:
    fill(store, "new", {1: {}})
    address = address_in(tmp_path, "new")
    source = QdrantSource(address)
    sink = QdrantSink(address, source=source)
    with pytest.raises(ConfigurationError, match="new is the source"):
        sink.check(space(), resuming=False, overwrite=True)
    sink.close()
    source.close()


@pytest.mark.parametrize(
    ("size", "distance", "points", "reason"),
    [
        (5, COSINE, 0, "new has 5 dimensions, fake has 4"),
        (4, models.Distance.DOT, 0, "distance Dot, not Cosine"),
        (4, COSINE, 3, "new has 3 points"),
    ],
)
def test_what_is_there_is_only_replaced_when_told(
    store: QdrantClient, sink: QdrantSink, size: int, distance: models.Distance, points: int, reason: str
) -> None:
    fill(store, "new", {number: {} for number in range(points)}, size=size, distance=distance)
    with pytest.raises(ConfigurationError, match=f"{reason}.*: write to another collection, or pass --overwrite"):
        sink.check(space(), resuming=False, overwrite=False)

    sink.check(space(), resuming=False, overwrite=True)
    assert store.count("new").count == points
    sink.begin(space())
    assert store.count("new").count == 0
    found = store.get_collection("new").config.params.vectors
    assert found == models.VectorParams(size=4, distance=COSINE)


def test_named_vectors_are_not_written_to(store: QdrantClient, sink: QdrantSink) -> None:
    store.create_collection("new", vectors_config={"a": models.VectorParams(size=4, distance=COSINE)})
    with pytest.raises(ConfigurationError, match="named, sparse or multiple vectors"):
        sink.check(space(), resuming=False, overwrite=False)


def test_an_empty_collection_of_the_right_make_keeps_its_metadata(store: QdrantClient, sink: QdrantSink) -> None:
    fill(store, "new", {})
    store.update_collection("new", metadata={"owner": "data team"})
    sink.check(space(), resuming=False, overwrite=False)
    sink.begin(space())
    assert (store.get_collection("new").config.metadata or {})["owner"] == "data team"
    assert provenance_of(store, "new").state == "filling"


def test_a_run_goes_on_at_its_mark_and_ends_as_if_undisturbed(tmp_path: Path) -> None:
    first = QdrantSink(address_in(tmp_path, "new"))
    first.check(space(), resuming=False, overwrite=False)
    first.begin(space())
    mark = first.write(rows(200)[:100])
    first.write(rows(200)[100:150])  # after its last checkpoint
    first.close()

    second = QdrantSink(address_in(tmp_path, "new"))
    second.check(space(), resuming=True, overwrite=False)
    second.begin(space(), mark)
    resumed = second.write(rows(200)[100:])
    assert second.finish(totals(200), embed).startswith("200 points, 32 of them embedded again")
    second.close()

    run(address_in(tmp_path, "other"), rows(200))
    undisturbed = QdrantSink(address_in(tmp_path, "third"))
    undisturbed.begin(space())
    assert undisturbed.write(rows(200)) == resumed
    undisturbed.close()
    store = open_store(tmp_path)  # read anew: the engine rounds what it replaces in memory another way
    new, other = (store.scroll(name, limit=300, with_vectors=True)[0] for name in ("new", "other"))
    store.close()
    assert new == other


@pytest.mark.parametrize("overwrite", [False, True])
def test_another_run_s_work_is_not_gone_on_with(store: QdrantClient, tmp_path: Path, overwrite: bool) -> None:
    first = QdrantSink(address_in(tmp_path, "new"))
    first.begin(space(run="other"))
    first.close()
    sink = QdrantSink(address_in(tmp_path, "new"))
    if overwrite:
        sink.check(space(), resuming=False, overwrite=True)
        sink.begin(space())
    else:
        with pytest.raises(ConfigurationError, match="new is half-filled by another run"):
            sink.check(space(), resuming=True, overwrite=False)
    sink.close()


def test_an_abandoned_run_s_points_go_when_it_starts_anew(store: QdrantClient, tmp_path: Path) -> None:
    first = QdrantSink(address_in(tmp_path, "new"))
    first.begin(space())
    first.write(rows(9))
    first.close()
    assert run(address_in(tmp_path, "new"), rows(5)).startswith("5 points")


def test_what_a_run_has_completed_is_not_begun_anew_unasked(store: QdrantClient, tmp_path: Path) -> None:
    run(address_in(tmp_path, "new"), rows(9))
    sink = QdrantSink(address_in(tmp_path, "new"))
    with pytest.raises(ConfigurationError, match="new has 9 points"):
        sink.check(space(), resuming=False, overwrite=False)
    sink.check(space(), resuming=True, overwrite=False)  # it ended before its checkpoint said so
    sink.close()


def test_another_run_s_empty_collection_is_not_gone_on_with(store: QdrantClient, tmp_path: Path) -> None:
    run(address_in(tmp_path, "new"), [], of=space(run="other"))
    sink = QdrantSink(address_in(tmp_path, "new"))
    with pytest.raises(ConfigurationError, match="no longer what that run was filling"):
        sink.begin(space(), {"rows": 5, "sample": [1]})
    sink.close()


def test_a_collection_that_is_gone_is_not_resumed(store: QdrantClient, sink: QdrantSink) -> None:
    sink.check(space(), resuming=True, overwrite=False)
    with pytest.raises(ConfigurationError, match="no longer what that run was filling: start it without --resume"):
        sink.begin(space(), {"rows": 5, "sample": [1]})
    assert not store.collection_exists("new")


def test_a_source_s_distance_and_alias_are_taken_over(store: QdrantClient, tmp_path: Path) -> None:
    fill(store, "v1", {1: {"text": "a"}}, distance=models.Distance.DOT, size=9, alias="contacts")
    source = QdrantSource(address_in(tmp_path, "contacts"))
    run(address_in(tmp_path, "v2"), [embedded(1, "a")], source=source)
    source.close()
    made = store.get_collection("v2").config.params.vectors
    assert made == models.VectorParams(size=4, distance=models.Distance.DOT)
    assert provenance_of(store, "v2").alias == "contacts"


def test_a_source_with_named_vectors_is_refused(store: QdrantClient, tmp_path: Path) -> None:
    store.create_collection("v1", vectors_config={"a": models.VectorParams(size=4, distance=COSINE)})
    source = QdrantSource(address_in(tmp_path, "v1"))
    sink = QdrantSink(address_in(tmp_path, "v2"), source=source)
    with pytest.raises(ConfigurationError, match="v1 has named, sparse or multiple vectors"):
        sink.check(space(), resuming=False, overwrite=False)
    sink.close()
    source.close()


class TestVerification:
    """What `finish` finds; the collection stays as it is, and is not complete."""

    @pytest.fixture
    def filled(self, sink: QdrantSink) -> QdrantSink:
        sink.begin(space())
        sink.write(rows(20))
        return sink

    def test_a_point_that_is_gone(self, store: QdrantClient, filled: QdrantSink) -> None:
        store.delete("new", models.PointIdsList(points=[3]))
        with pytest.raises(VerificationFailed, match="new has 19 points, though 20 rows were written"):
            filled.finish(totals(20), embed)
        assert provenance_of(store, "new").state == "filling"
        with pytest.raises(VerificationFailed, match="new lacks 1 of 20 points"):
            filled.finish(totals(19), embed)

    def test_another_text_s_vectors(self, store: QdrantClient, filled: QdrantSink) -> None:
        for number in (3, 5):
            store.upsert("new", [models.PointStruct(id=number, vector=[1.0] * 4, payload={"text": f"text {number}"})])
        with pytest.raises(VerificationFailed, match="2 of 20 points of new hold another vector than their text has"):
            filled.finish(totals(20), embed)
        assert provenance_of(store, "new").state == "filling"

    def test_a_text_that_is_gone(self, store: QdrantClient, filled: QdrantSink) -> None:
        store.upsert("new", [models.PointStruct(id=3, vector=[1.0] * 4, payload={})])
        with pytest.raises(VerificationFailed, match="a point of new has lost its text"):
            filled.finish(totals(20), embed)

    def test_too_many_points(self, filled: QdrantSink) -> None:
        for unique in (True, False):
            with pytest.raises(VerificationFailed, match="new has 20 points, though 19 rows"):
                filled.finish(totals(19, unique_ids=unique), embed)

    def test_another_run_that_took_over(self, tmp_path: Path, filled: QdrantSink) -> None:
        other = QdrantSink(address_in(tmp_path, "new"))
        other.check(space(run="other"), resuming=False, overwrite=True)
        other.begin(space(run="other"))
        other.close()
        with pytest.raises(VerificationFailed, match="new was taken over by another run"):
            filled.finish(totals(20), embed)

    def test_identities_that_come_twice_are_told(self, store: QdrantClient, filled: QdrantSink) -> None:
        filled.write([embedded(3, "text 3"), embedded(19, "changed")])
        told = filled.finish(totals(22, unique_ids=False), embed)
        assert told.startswith("20 points (2 rows had an identity that came before), 20 of them embedded again")
        assert store.retrieve("new", [19])[0].payload == {"text": "changed"}

    def test_a_part_of_the_data_is_known_as_one(self, store: QdrantClient, filled: QdrantSink) -> None:
        filled.finish(totals(20, partial=True), embed)
        found = provenance_of(store, "new")
        assert (found.state, found.partial) == ("complete", True)

    def test_no_rows_at_all(self, sink: QdrantSink, store: QdrantClient) -> None:
        sink.begin(space())
        assert sink.finish(totals(0), embed).startswith("0 points")

    def test_texts_are_those_of_the_template(self, sink: QdrantSink) -> None:
        of: Space = replace(space(), template="{text} - {when}")
        sink.begin(of)
        row = embedded(1, "x", when="noon", other="y")
        sink.write([replace(row, text="x - noon", vector=embed(["x - noon"])[0])])
        assert sink.finish(totals(1), embed).startswith("1 points, 1 of them")
