"""Collections as sources: pages in the order of ids, positions, conditions, aliases; and one folder that many open."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from qdrant_client import QdrantClient

from producer import ConfigurationError, StoreUnavailable
from producer.bulk.conditions import Conditions
from producer.bulk.ends import Record
from producer.bulk.qdrant_filter import filter_of
from producer.bulk.qdrant_points import point_id
from producer.bulk.qdrant_source import QdrantSource
from producer.qdrant import QdrantAddress, connect, connect_async
from tests.unit.qdrant_stores import address_in, fill, open_store, point_at

ALL = Conditions()
UUIDS = [str(UUID(int=number)) for number in (3, 2**127)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[QdrantClient]:
    client = open_store(tmp_path)
    yield client
    client.close()


def read(source: QdrantSource, where: Conditions = ALL, after: Any = None) -> list[Record]:
    return list(source.records(where, after))


@pytest.mark.parametrize("page", [1, 2, 3, 100])
def test_every_point_comes_once_in_the_order_of_ids(store: QdrantClient, tmp_path: Path, page: int) -> None:
    ids = [7, 0, 2**64 - 1, *UUIDS]
    fill(store, "contacts", {each: {"n": each} for each in ids})
    source = QdrantSource(address_in(tmp_path), points_per_page=page)

    found = read(source)

    assert [record.id for record in found] == [0, 7, 2**64 - 1, *UUIDS]
    assert [record.fields for record in found] == [{"n": record.id} for record in found]
    for place, record in enumerate(found):
        assert read(source, after=record.position) == found[place + 1 :]
    source.close()


def test_records_have_the_identity_that_their_points_were_made_of(store: QdrantClient, tmp_path: Path) -> None:
    fill(store, "contacts", {point_id("c001"): {"id": "c001"}, point_id("c002"): {"id": "c003"}, 7: {"id": 8}, 9: {}})
    source = QdrantSource(address_in(tmp_path))
    assert {record.position: record.id for record in read(source)} == {
        point_id("c001"): "c001",
        point_id("c002"): point_id("c002"),
        7: 7,
        9: 9,
    }
    source.close()


def test_a_position_whose_point_is_gone_is_one_still(store: QdrantClient, tmp_path: Path) -> None:
    fill(store, "contacts", {1: {}, 3: {}, 4: {}})
    source = QdrantSource(address_in(tmp_path), points_per_page=1)
    assert [record.id for record in read(source, after=2)] == [3, 4]
    source.close()


VALUES: dict[int, dict[str, Any]] = {
    1: {"v": 42},
    2: {"v": "42"},
    3: {"v": 42.0},
    4: {"v": [7, "42"]},
    5: {"v": True},
    6: {"v": "true"},
    7: {"v": None},
    8: {},
    9: {"a": {"b": 42}},
    10: {"a.b": "42"},
    11: {"a": [{"b": 42}]},
    12: {"v": 4.5},
    13: {"v": 2**64},
    14: {"v": "2**64"},
    15: {"odd name": "x"},
    16: {"v": "042"},
}


@pytest.mark.parametrize(
    ("conditions", "ids"),
    [
        ("v=42", [1, 2, 4]),
        ("v=42.0", [3]),
        ("v=true", [5, 6]),
        ("v=TRUE", [5]),
        ("v=4.5", [12]),
        (f"v={2**64}", [13]),
        ("a.b=42", [9, 10]),
        ("odd name=x", [15]),
        ("v=042", [16]),
        ("v=None", []),
        ("none=1", []),
    ],
)
def test_conditions_mean_what_they_mean_everywhere(
    store: QdrantClient, tmp_path: Path, conditions: str, ids: list[int]
) -> None:
    fill(store, "contacts", VALUES)
    where = Conditions.parse([conditions])
    assert [number for number, fields in VALUES.items() if where.fit(fields)] == ids

    source = QdrantSource(address_in(tmp_path))
    assert [record.id for record in read(source, where)] == ids
    assert (source.count(where) or 0) >= len(ids)
    source.close()


def test_conditions_are_applied_by_the_store(store: QdrantClient, tmp_path: Path) -> None:
    fill(store, "contacts", {n: {"user": n % 10, "x": n % 2} for n in range(100)})
    source = QdrantSource(address_in(tmp_path))
    assert source.count(Conditions.parse(["user=4", "x=0"])) == 10
    assert source.count(Conditions.parse(["user=4", "x=1"])) == 0
    assert source.count(ALL) == 100
    assert filter_of(ALL) is None
    assert filter_of(Conditions.parse([f"v={2**64}"])) is None  # a server refuses such a number
    source.close()


def test_an_alias_is_resolved_once(store: QdrantClient, tmp_path: Path) -> None:
    fill(store, "v1", {1: {}}, alias="contacts")
    fill(store, "v2", {2: {}})
    source = QdrantSource(address_in(tmp_path))
    source.check()
    assert (source.collection, source.alias, source.fingerprint()) == ("v1", "contacts", "v1")

    point_at(store, "contacts", "v2")

    assert [record.id for record in read(source)] == [1]
    other = QdrantSource(address_in(tmp_path))
    assert other.fingerprint() == "v2"
    for each in (source, other):
        each.close()


def test_a_missing_collection_is_one_line_that_names_some(store: QdrantClient, tmp_path: Path) -> None:
    for number in range(7):
        fill(store, f"c{number}", {})
    source = QdrantSource(address_in(tmp_path, "none"))
    with pytest.raises(
        ConfigurationError, match=r"no collection or alias 'none' in .*: it has c0, c1, c2, c3, c4 and 2"
    ):
        source.check()
    source.close()


def test_a_folder_is_opened_once_and_shared(tmp_path: Path) -> None:
    first = open_store(tmp_path)
    fill(first, "contacts", {1: {}})
    second = connect(QdrantAddress.parse(f"qdrant+local:{tmp_path}/../{tmp_path.name}#contacts"))
    first.close()
    first.close()
    assert second.count("contacts").count == 1
    with pytest.raises(RuntimeError, match="closed"):
        first.count("contacts")

    async def ask() -> int:
        client = connect_async(address_in(tmp_path))
        found = await client.count("contacts")
        await client.close()
        return found.count

    assert asyncio.run(ask()) == 1
    second.close()
    own = QdrantClient(path=str(tmp_path))  # the folder is free again
    with pytest.raises(StoreUnavailable, match="open in another process") as caught:
        connect(address_in(tmp_path))
    assert caught.value.code == "store_refused"
    own.close()


def test_the_disk_is_waited_for_once_per_write(tmp_path: Path) -> None:
    """Fails when the engine's inside is not what the code takes it for; then writing is slow."""
    store = open_store(tmp_path)
    fill(store, "contacts", {1: {}})
    with closing(sqlite3.connect(tmp_path / "collection" / "contacts" / "storage.sqlite")) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert other.execute("SELECT count(*) FROM points").fetchone() == (1,)
    store.close()


def test_a_folder_that_holds_something_else_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no Qdrant store in"):
        connect(address_in(tmp_path))
    (tmp_path / "meta.json").write_text("[")
    with pytest.raises(ConfigurationError, match="cannot be read: JSONDecodeError"):
        connect(address_in(tmp_path))


def test_a_key_that_cannot_be_sent_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="HEADRACE_QDRANT_API_KEY") as caught:
        connect(QdrantAddress.parse("qdrant://localhost/contacts"), "secret\n")
    assert "secret" not in str(caught.value)
