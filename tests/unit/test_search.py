"""A search's results: the order, scores and ranks, what degrades and what is an error, and the time of each stage."""

from collections.abc import Iterator

import pytest
from qdrant_client import QdrantClient

from producer.errors import (
    HeadraceError,
    InvalidRequest,
    RedisUnavailable,
    ResultTimeout,
    RowFailed,
    StoreUnavailable,
)
from producer.search_call import RERANK_TIMEOUT_S, RERANKED
from producer.search_effects import BeginGeneration, Embed, Fetch, Locate, Nearest, ReadCache, Rerank, WriteCache
from tests.unit.searching import NOW_MS, STAGE_S, TEXTS, SearchRig, contacts, fill, make_collection, point_alias, qdrant

STAGE_MS = STAGE_S * 1000
MANY = {number: {"user_id": 1, "text": "x" * number} for number in range(1, 31)}


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    """A collection behind the alias, with the contacts of user 1 and one of user 2."""
    with qdrant() as client:
        make_collection(client, "blue")
        point_alias(client, "blue")
        fill(client, "blue", {**contacts(), **contacts(["somebody else's"], 2, first=50)})
        yield client


def test_candidates_are_reranked_and_tell_both_ranks_and_scores(client: QdrantClient) -> None:
    found = SearchRig(client).search()

    assert [hit.text for hit in found.results] == sorted(TEXTS, key=len, reverse=True)
    assert [hit.rank for hit in found.results] == [1, 2, 3, 4]
    assert [(hit.id, hit.vector_rank) for hit in found.results] == [(4, 4), (1, 1), (3, 3), (2, 2)]
    assert [hit.rerank_score for hit in found.results] == [19.0, 12.0, 11.0, 10.0]
    assert [hit.payload["text"] for hit in found.results] == [hit.text for hit in found.results]
    scores = {hit.vector_rank: hit.vector_score for hit in found.results}
    assert scores[1] > scores[2] > scores[3] > scores[4]
    assert (found.collection, found.model, found.found_at_ms) == ("blue", "offline", NOW_MS)
    assert (found.cached, found.embedding_cached, found.fallback_used, found.fallback_reason) == (
        False,
        True,
        False,
        None,
    )


def test_without_rerank_the_order_is_the_vectors(client: QdrantClient) -> None:
    rig = SearchRig(client, rerank=False)

    found = rig.search()

    assert [hit.id for hit in found.results] == [1, 2, 3, 4]
    assert {hit.rerank_score for hit in found.results} == {None}
    assert not found.fallback_used
    assert "Rerank" not in rig.kinds()
    assert found.timings_ms.rerank is None
    assert rig.search().cached


@pytest.mark.parametrize(("limit", "asked"), [(3, 20), (20, 20), (25, 25)])
def test_twenty_are_reranked_and_the_rest_follow_as_the_vectors_have_them(
    client: QdrantClient, limit: int, asked: int
) -> None:
    fill(client, "blue", MANY)
    rig = SearchRig(client)

    found = rig.search(limit=limit)

    (nearest,) = [effect for effect in rig.performed if isinstance(effect, Nearest)]
    (rerank,) = [effect for effect in rig.performed if isinstance(effect, Rerank)]
    assert (nearest.limit, len(rerank.documents)) == (asked, RERANKED)
    assert [hit.id for hit in found.results] == [*range(20, 0, -1), *range(21, 31)][:limit]
    assert [hit.vector_rank for hit in found.results] == [hit.id for hit in found.results]
    assert all((hit.rerank_score is None) == (hit.vector_rank > RERANKED) for hit in found.results)


def test_what_has_no_text_or_too_long_a_one_stays_behind_those_with_a_score(client: QdrantClient) -> None:
    fill(client, "blue", {1: {"user_id": 1}, 2: {"user_id": 1, "text": "x" * 101}, 3: {"user_id": 1, "text": " "}})

    found = SearchRig(client, max_text_bytes=100).search()

    assert [(hit.id, hit.rerank_score) for hit in found.results] == [(4, 19.0), (1, None), (2, None), (3, None)]
    assert not found.fallback_used


def test_the_text_is_made_by_the_template(client: QdrantClient) -> None:
    fill(client, "blue", {1: {"user_id": 1, "name": "Mara", "job": {"title": "hydrologist"}, "text": "unused"}})
    rig = SearchRig(client, text="{name} - {job.title[:5]}")

    found = rig.search(limit=1)

    assert found.results[0].text == "Mara - hydro"
    (rerank,) = [effect for effect in rig.performed if isinstance(effect, Rerank)]
    assert rerank.documents == ("Mara - hydro",)


def test_a_template_that_fits_nobody_is_told_and_not_cached(client: QdrantClient) -> None:
    rig = SearchRig(client, text="{nmae}")

    found = rig.search()

    assert [hit.id for hit in found.results] == [1, 2, 3, 4]
    assert (found.fallback_used, (found.fallback_reason or "")[:8]) == (True, "no_text:")
    assert not rig.search().cached


def test_a_user_without_points_finds_nothing(client: QdrantClient) -> None:
    rig = SearchRig(client)

    assert rig.search("nobody").results == ()
    assert rig.search("nobody").cached


@pytest.mark.parametrize(
    "error",
    [
        ResultTimeout("no result within 1 s"),
        RowFailed("no", code="model_failed"),
        RedisUnavailable("away", code="redis_refused"),
        HeadraceError("full"),
    ],
)
def test_rerank_trouble_keeps_the_vectors_order_and_is_not_cached(client: QdrantClient, error: HeadraceError) -> None:
    rig = SearchRig(client)
    rig.failing[Rerank] = error

    found = rig.search()

    assert [(hit.id, hit.rerank_score) for hit in found.results] == [(1, None), (2, None), (3, None), (4, None)]
    assert (found.fallback_used, found.fallback_reason) == (True, f"{error.code}: {error}")
    assert "WriteCache" not in rig.kinds()
    rig.failing.clear()
    assert rig.search().results[0].id == 4


@pytest.mark.parametrize("stage", [ReadCache, BeginGeneration, WriteCache])
def test_cache_trouble_is_a_miss_that_is_told_once(
    client: QdrantClient, stage: type, caplog: pytest.LogCaptureFixture
) -> None:
    rig = SearchRig(client)
    rig.failing[stage] = RedisUnavailable("Redis cannot be reached")

    found = rig.search(query="a secret wish")

    assert [hit.id for hit in found.results] == [4, 1, 3, 2]
    assert not found.cached
    (record,) = caplog.records
    assert "Redis cannot be reached" in record.message
    assert "secret" not in record.message


@pytest.mark.parametrize(
    ("stage", "error"),
    [
        (Embed, ResultTimeout("late")),
        (Locate, StoreUnavailable("away")),
        (Nearest, StoreUnavailable("away")),
        (Nearest, StoreUnavailable("no", code="store_refused")),
    ],
)
def test_no_embedding_and_no_store_are_errors(client: QdrantClient, stage: type, error: HeadraceError) -> None:
    rig = SearchRig(client)
    rig.failing[stage] = error

    with pytest.raises(type(error)) as caught:
        rig.search()
    assert caught.value is error


def test_a_store_that_fails_at_cached_results_is_an_error_too(client: QdrantClient) -> None:
    rig = SearchRig(client)
    rig.search()
    rig.failing[Fetch] = StoreUnavailable("away")

    with pytest.raises(StoreUnavailable, match="away"):
        rig.search()


def test_each_stage_that_ran_has_its_time(client: QdrantClient) -> None:
    rig = SearchRig(client)

    times = rig.search().timings_ms
    assert times.resolve == pytest.approx(STAGE_MS)
    assert times.cache == pytest.approx(3 * STAGE_MS), "read, begin a generation, write"
    assert times.embedding == times.vector_search == times.rerank == pytest.approx(STAGE_MS)
    assert times.total == pytest.approx(7 * STAGE_MS)

    times = rig.search().timings_ms
    assert (times.resolve, times.embedding, times.vector_search, times.rerank) == (None, None, None, None)
    assert times.cache == pytest.approx(2 * STAGE_MS), "read, and fetch the payloads"
    assert times.total == pytest.approx(2 * STAGE_MS)


def test_the_rerank_has_the_time_that_is_left(client: QdrantClient) -> None:
    rig = SearchRig(client)
    rig.before[Nearest] = lambda: rig.clock.advance(4.0)

    rig.search(timeout_s=8.0)

    left = {type(effect): effect.timeout_s for effect in rig.performed if isinstance(effect, Embed | Rerank)}
    assert left[Embed] == 8.0
    assert left[Rerank] == pytest.approx(8.0 - 4.0 - 5 * STAGE_S)
    rig.before[Nearest] = lambda: rig.clock.advance(40.0)
    rig.search(query="late", timeout_s=10.0)
    assert [effect.timeout_s for effect in rig.performed if isinstance(effect, Rerank)][-1] > 0
    rig.search(query="long", timeout_s=100.0)
    assert [effect.timeout_s for effect in rig.performed if isinstance(effect, Rerank)][-1] == RERANK_TIMEOUT_S


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"limit": 0}, "bad_limit"),
        ({"limit": 101}, "bad_limit"),
        ({"limit": True}, "bad_limit"),
        ({"limit": 2.0}, "bad_limit"),
        ({"query": ""}, "empty_text"),
        ({"query": " \n"}, "empty_text"),
        ({"query": None}, "not_text"),
        ({"user": ""}, "bad_user_id"),
        ({"user": None}, "bad_user_id"),
        ({"user": True}, "bad_user_id"),
        ({"user": 1.0}, "bad_user_id"),
        ({"user": "\ud800"}, "bad_user_id"),
        ({"user": "x" * 257}, "bad_user_id"),
        ({"user": 10**5000}, "bad_user_id"),
        ({"timeout_s": 0}, "bad_timeout"),
    ],
)
def test_what_cannot_be_a_search_is_refused_before_anything_is_asked(
    client: QdrantClient, arguments: dict[str, object], code: str
) -> None:
    rig = SearchRig(client)

    with pytest.raises(InvalidRequest) as caught:
        rig.search(**arguments)  # type: ignore[arg-type]
    assert caught.value.code == code
    assert rig.kinds() == []
