"""`headrace search` as a person types it: the table, the JSON, and one clear line for whatever cannot be."""

import json
from pathlib import Path

import pytest
from qdrant_client import QdrantClient, models

from tests.integration.harness.commands import call, check_one_line, check_success
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import DIMENSION
from tests.integration.harness.searching import TEXTS, make_contacts, point_alias
from tests.integration.harness.site import Site

QUERY = "where can I swim?"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """An embedded store in a folder, with the contacts of two users behind an alias."""
    client = QdrantClient(path=str(tmp_path / "store"))
    make_contacts(client, "contacts-1", model="fake")
    point_alias(client, "contacts", "contacts-1")
    client.close()
    return f"qdrant+local:{tmp_path}/store#contacts"


def test_a_table_and_then_json_from_the_cache(solo: Site, url: str) -> None:
    with Engine(solo), Engine(solo, task="rerank"):
        shown = check_success(call(solo, "search", "7", QUERY, HEADRACE_QDRANT_URL=url, COLUMNS="200"))
        told = check_success(call(solo, "search", "7", QUERY, "--json", "--qdrant-url", url))
        nobody = check_success(call(solo, "search", "nobody", QUERY, "--qdrant-url", url))
    assert all(f"{text} of 7" in shown for text in TEXTS)
    assert "of 8" not in shown
    assert "contacts-1 by fake, in ms: resolve " in shown
    assert ", rerank " in shown
    found = json.loads(told)
    assert (found["cached"], found["collection"], found["model"]) == (True, "contacts-1", "fake")
    assert [hit["rank"] for hit in found["results"]] == [1, 2, 3, 4, 5]
    assert found["timings_ms"].keys() == {"resolve", "cache", "embedding", "vector_search", "rerank", "total"}
    assert found["results"][0]["payload"]["user_id"] == 7
    assert "No results" in nobody


def test_an_id_is_shown_whole_on_80_columns(solo: Site, url: str, tmp_path: Path) -> None:
    name = "0b1b1f4e-9d5c-4b3e-8a51-6a8f2f6f7c11"
    client = QdrantClient(path=f"{tmp_path}/store")
    point = models.PointStruct(id=name, vector=[1.0] * DIMENSION, payload={"user_id": 9, "text": "x" * 200})
    client.upsert("contacts-1", [point])
    client.close()
    with Engine(solo):
        shown = check_success(call(solo, "search", "9", QUERY, "--qdrant-url", url, COLUMNS="80"))
    rows = [line.split("│")[-2].strip() for line in shown.splitlines() if line.startswith("│")]
    assert "".join(rows) == name


def test_without_a_rerank_pool_it_is_told_at_once(solo: Site, url: str) -> None:
    with Engine(solo):
        shown = check_success(call(solo, "search", "7", QUERY, "--qdrant-url", url, COLUMNS="200"))
        plainly = check_success(call(solo, "search", "7", QUERY, "--qdrant-url", url, "--no-rerank", COLUMNS="200"))
    assert "not reranked: unknown_model: no rerank pool serves 'fake'" in shown
    assert "not reranked" not in plainly


@pytest.mark.parametrize(
    ("arguments", "reasons"),
    [
        (["", "q"], ["user_id"]),
        (["7", " "], ["query is empty"]),
        (["7", "q", "--limit", "0"], ["limit must be a whole number from 1 to 100"]),
        (["7", "q", "--limit", "101"], ["limit must be a whole number from 1 to 100"]),
        (["7", "q", "--text", "no field"], ["names no field"]),
        (["7", "q", "--user-field", ""], ["user_field must name"]),
        (["7", "q", "--qdrant-url", "http://host"], ["no collection of Qdrant's"]),
        (["7", "q", "--qdrant-url", "qdrant+local:/nowhere#contacts"], ["no Qdrant store in /nowhere"]),
        (["7", "q", "--qdrant-url", "qdrant://127.0.0.1:9/contacts"], ["127.0.0.1:9 cannot be reached"]),
    ],
)
def test_bad_input_is_one_line(solo: Site, url: str, arguments: list[str], reasons: list[str]) -> None:
    with Engine(solo):
        check_one_line(call(solo, "search", *arguments, HEADRACE_QDRANT_URL=url), *reasons)


def test_what_is_not_there_is_one_line(solo: Site, url: str) -> None:
    check_one_line(call(solo, "search", "7", QUERY), "set HEADRACE_QDRANT_URL")
    gone = url.replace("#contacts", "#gone")
    check_one_line(call(solo, "search", "7", QUERY, "--qdrant-url", gone), "there is no collection 'gone'")
    check_one_line(call(solo, "search", "7", QUERY, "--qdrant-url", url), "no embed pool serves 'fake'")
