"""Cached searches: whose they are, what they depend on, what ends them, and that nothing outlives a `forget`."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from producer.search_effects import BeginGeneration, Embed, Fetch, Nearest, WriteCache
from producer.wire.keys import SearchKeys
from producer.wire.searches import GENERATION_BYTES
from tests.unit.searching import SearchRig, contacts, fill, make_collection, point_alias, qdrant

ALL = ["ReadCache", "BeginGeneration", "Embed", "Nearest", "Rerank", "WriteCache"]
MISS = [kind for kind in ALL if kind != "BeginGeneration"]
HIT = ["ReadCache", "Fetch"]
KEY = "the key of this namespace"


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    """A collection behind the alias, with the contacts of user 1 and the same texts of user 2."""
    with qdrant() as client:
        make_collection(client, "blue")
        point_alias(client, "blue")
        fill(client, "blue", {**contacts(), **contacts(user=2, first=51)})
        yield client


@pytest.fixture
def rig(client: QdrantClient) -> SearchRig:
    """A rig that has resolved its alias."""
    rig = SearchRig(client)
    rig.search("another")
    rig.kinds()
    return rig


def entries(rig: SearchRig) -> list[str]:
    keys = [key.decode() for key in rig.redis.scan_iter("*search:*")]
    return sorted(key for key in keys if len(key.rsplit(":", 1)[1]) == 32)


def test_the_second_search_is_the_first_ones_results(rig: SearchRig) -> None:
    first = rig.search()
    assert rig.kinds() == ALL

    again = rig.search()

    assert rig.kinds() == HIT
    assert again.cached
    assert (again.results, again.found_at_ms, again.model) == (first.results, first.found_at_ms, first.model)
    assert again.embedding_cached is None
    assert rig.search(query=" swim\n").cached, "as texts are normalised"


def test_what_is_stored_has_no_payload_and_ends_after_five_minutes(rig: SearchRig) -> None:
    rig.search()

    (key,) = [key for key in entries(rig) if ":1:" in key]
    stored = rig.redis.get(key)
    assert isinstance(stored, bytes)
    assert b"lake" not in stored
    assert b"swim" not in stored
    assert 290 < int(rig.redis.ttl(key)) <= 300
    assert int(rig.redis.ttl("search:1:generation")) > 3000
    assert 290 < int(rig.redis.ttl("search:1:entries")) <= 300


def test_the_list_of_entries_drops_those_that_have_ended(rig: SearchRig) -> None:
    rig.redis.zadd("search:1:entries", {"ended": 1})

    rig.search()

    assert rig.redis.zrange("search:1:entries", 0, -1) == [
        key.rsplit(":", 1)[1].encode() for key in entries(rig) if ":1:" in key
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda rig: rig.search(query="Swim"),
        lambda rig: rig.search(limit=9),
        lambda rig: rig.search(user=2),
        lambda rig: rig.search(core=rig.another_core(rerank=False)),
        lambda rig: rig.search(core=rig.another_core(text="{text} {name}")),
        lambda rig: rig.search(core=rig.another_core(user_field="owner")),
        lambda rig: rig.search(core=rig.another_core(place="elsewhere")),
    ],
    ids=["case", "limit", "user", "rerank", "template", "user field", "store"],
)
def test_what_changes_results_changes_the_entry(rig: SearchRig, change: Callable[[SearchRig], Any]) -> None:
    rig.search()

    assert not change(rig).cached


def test_one_user_as_number_and_as_string(rig: SearchRig) -> None:
    first = rig.search(1)

    again = rig.search("1")

    assert again.cached
    assert again.results == first.results
    assert not rig.search("01").cached


@pytest.mark.parametrize("other", ["1:generation", "1:entries", "1%3A", "1 ", "{1}"])
def test_no_users_keys_are_anothers(rig: SearchRig, other: str) -> None:
    rig.search(1)
    before = {key: rig.redis.dump(key) for key in rig.redis.scan_iter("search:1:*")}

    assert rig.search(other).results == ()
    rig.forget(other)

    assert {key: rig.redis.dump(key) for key in rig.redis.scan_iter("search:1:*")} == before
    assert rig.search(1).cached


def test_results_of_one_user_never_reach_another(rig: SearchRig) -> None:
    rig.search(1)
    rig.search(2)
    one, other = (next(key for key in entries(rig) if f":{user}:" in key) for user in (1, 2))
    rig.redis.copy(one, other, replace=True)  # by whoever may write to Redis
    rig.redis.copy("search:1:generation", "search:2:generation", replace=True)

    found = rig.search(2)

    assert not found.cached, "the points are not theirs"
    assert {hit.payload["user_id"] for hit in found.results} == {2}


@pytest.mark.parametrize("damage", ["vanished", "changed hands"])
def test_a_point_that_is_no_longer_the_users_makes_it_a_miss(rig: SearchRig, damage: str) -> None:
    rig.search()
    if damage == "vanished":
        rig.qdrant.delete("blue", models.PointIdsList(points=[4]))
    else:
        rig.qdrant.set_payload("blue", {"user_id": 2}, points=[4])
    rig.kinds()

    found = rig.search()

    assert rig.kinds() == ["ReadCache", "Fetch", "Embed", "Nearest", "Rerank", "WriteCache"]
    assert [hit.id for hit in found.results] == [1, 3, 2]
    assert rig.search().cached


def test_payloads_are_as_they_are_now(rig: SearchRig) -> None:
    rig.search()
    rig.qdrant.set_payload("blue", {"text": "changed"}, points=[4])

    found = rig.search()

    assert found.cached
    assert (found.results[0].text, found.results[0].payload["text"]) == ("changed", "changed")


def test_forget_drops_one_users_entries_and_its_keys(rig: SearchRig) -> None:
    for query in ("swim", "sing", "ski"):
        rig.search(1, query)
    rig.search(2)

    rig.forget(1)

    assert list(rig.redis.scan_iter("search:1:*")) == []
    assert rig.search(2).cached
    assert not rig.search(1).cached
    rig.forget("who has nothing")


@pytest.mark.parametrize("moment", [Embed, Nearest, WriteCache])
@pytest.mark.parametrize("known", [False, True], ids=["first search", "later search"])
def test_what_began_before_a_forget_is_not_served_after_it(rig: SearchRig, moment: type, known: bool) -> None:
    if known:
        rig.search(query="before")
    rig.before[moment] = rig.forget

    rig.search()

    assert not rig.search().cached
    assert rig.search().cached, "what began after it is"


def test_what_began_before_a_forget_is_not_revived_by_those_that_began_after_it(rig: SearchRig) -> None:
    def forget_and_search() -> None:
        rig.forget()
        rig.search(query="another")

    rig.before[WriteCache] = forget_and_search

    rig.search()

    assert not rig.search().cached


def test_a_generation_that_was_evicted_is_a_miss(rig: SearchRig) -> None:
    rig.search()
    rig.redis.delete("search:1:generation")

    assert not rig.search().cached
    assert rig.search().cached


def test_two_first_searches_at_once_share_a_generation(rig: SearchRig) -> None:
    rig.before[BeginGeneration] = lambda: rig.search(query="meanwhile")

    rig.search()

    assert rig.search().cached
    assert rig.search(query="meanwhile").cached


@pytest.mark.parametrize("rubbish", [b"", b"\x00", b"\xc1", b"\x80", b"x" * 100_000])
def test_an_entry_that_cannot_be_read_is_a_miss(
    rig: SearchRig, rubbish: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    rig.search()
    (key,) = [key for key in entries(rig) if ":1:" in key]
    rig.redis.set(key, rubbish)

    assert [hit.id for hit in rig.search().results] == [4, 1, 3, 2]
    assert len(caplog.records) == 1
    assert rig.search().cached


def test_a_key_of_another_type_is_a_miss(rig: SearchRig, caplog: pytest.LogCaptureFixture) -> None:
    rig.redis.hset("search:1:generation", "a", "b")

    assert len(rig.search().results) == 4
    assert "WRONGTYPE" in caplog.records[0].message


@pytest.mark.parametrize("forgery", ["unsigned", "of another search"])
def test_with_a_cache_key_only_what_verifies_is_served(client: QdrantClient, forgery: str) -> None:
    rig, bare = SearchRig(client, cache_key=KEY), SearchRig(client)
    bare.redis = rig.redis
    rig.search(query="sing", limit=2)
    (other,) = entries(rig)
    rig.search(limit=2)
    assert rig.search(limit=2).cached
    (key,) = set(entries(rig)) - {other}
    if forgery == "unsigned":
        value = rig.redis.get(key)
        assert isinstance(value, bytes)
        rig.redis.set(key, value[32:])
    else:
        rig.redis.copy(other, key, replace=True)

    assert not rig.search(limit=2).cached
    assert rig.search(limit=2).cached


def test_the_keys_are_the_namespaces(client: QdrantClient) -> None:
    rig = SearchRig(client, namespace="acme")

    rig.search()

    assert {key.split(b":1:")[0] for key in rig.redis.scan_iter()} == {b"acme:search"}
    generation = rig.redis.get(SearchKeys(user_id=1, namespace="acme").generation)
    assert isinstance(generation, bytes)
    assert len(generation) == GENERATION_BYTES


def test_fetching_asks_for_the_users_points_alone(rig: SearchRig) -> None:
    rig.search(limit=2)
    rig.kinds()

    rig.search(limit=2)

    (fetch,) = [effect for effect in rig.performed if isinstance(effect, Fetch)]
    assert (fetch.ids, fetch.user_id) == ((4, 1), 1)
    assert not [effect for effect in rig.performed if isinstance(effect, Nearest)]
