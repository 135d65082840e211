"""The flow of iter_embed: order, a bounded window, laziness, duplicates, and waiting for as long as rows come."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from producer.errors import InvalidRequest, InvalidText, MalformedMessage, ResultTimeout, RowFailed
from producer.wire.messages import EmbeddingReply, Reply, Row
from tests.unit.fakes import FakeServer, ManualClock, failure, offline_core, passage, result_of, vector_of

WINDOW = 8


def texts_of(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


def embed(server: FakeServer, texts: list[str], window: int = WINDOW) -> list[list[float]]:
    flow = offline_core(server.clock).iter_embed("passage", window, None)
    return [vector.tolist() for vector in server.iterate(flow, texts)]


def expected(texts: list[str]) -> list[list[float]]:
    return [vector_of(text).tolist() for text in texts]


@pytest.mark.parametrize("count", [0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 3 * WINDOW, 3 * WINDOW + 1])
def test_any_number_of_texts_comes_back_in_order_within_the_window(server: FakeServer, count: int) -> None:
    texts = texts_of(count)

    assert embed(server, texts) == expected(texts)
    assert server.sent == texts
    assert server.most_held <= WINDOW
    assert server.lanes <= {"bulk"}


@pytest.mark.parametrize("window", [1, 2, 3, 100])
def test_any_window_works(server: FakeServer, window: int) -> None:
    texts = texts_of(10)

    assert embed(server, texts, window) == expected(texts)
    assert server.most_held <= window


@pytest.mark.parametrize("rows_per_wait", [1, 3])
def test_a_slow_worker_changes_nothing(server: FakeServer, rows_per_wait: int) -> None:
    server.rows_per_wait = rows_per_wait
    texts = texts_of(3 * WINDOW)

    assert embed(server, texts) == expected(texts)
    assert server.most_held == WINDOW


def test_the_window_is_refilled_in_halves_however_slowly_rows_come_back(server: FakeServer) -> None:
    server.rows_per_wait = 1

    embed(server, texts_of(3 * WINDOW))

    assert min(server.pulls) >= WINDOW // 2


def test_replies_out_of_order_come_out_in_order(clock: ManualClock) -> None:
    held: list[Row] = []

    def late_first(row: Row) -> Reply | None:
        held.append(row)
        return result_of(row) if row.text != "text 0" or len(held) > WINDOW else None

    server = FakeServer(clock, work=late_first)
    texts = texts_of(2 * WINDOW)

    assert embed(server, texts) == expected(texts)


def test_duplicates_inside_a_window_travel_once(server: FakeServer) -> None:
    texts = ["a", "b", "a", "a", "b", "c"]

    assert embed(server, texts) == expected(texts)
    assert server.sent == ["a", "b", "c"]


def test_duplicates_across_windows_come_from_the_cache(server: FakeServer) -> None:
    texts = ["a", "b", "c"] * (2 * WINDOW)

    assert embed(server, texts) == expected(texts)
    assert server.sent == ["a", "b", "c"]


def test_cached_rows_are_not_sent(server: FakeServer) -> None:
    for text in texts_of(20)[::2]:
        server.put(passage(text))

    assert embed(server, texts_of(20)) == expected(texts_of(20))
    assert server.sent == texts_of(20)[1::2]


def test_an_endless_source_is_read_as_far_as_the_window_goes(clock: ManualClock, server: FakeServer) -> None:
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        for read in itertools.count(1):
            yield f"text {read - 1}"

    vectors = server.iterate(offline_core(clock).iter_embed("passage", WINDOW, None), endless())
    first = list(itertools.islice(vectors, 20))

    assert [vector.tolist() for vector in first] == expected(texts_of(20))
    assert 20 <= read <= 20 + WINDOW


def test_memory_does_not_grow_with_the_number_of_rows(clock: ManualClock, server: FakeServer) -> None:
    flow = offline_core(clock).iter_embed("passage", WINDOW, None)
    vectors = server.iterate(flow, iter(texts_of(200)))
    for _ in range(150):
        next(vectors)

    state = flow.gi_yieldfrom.gi_frame.f_locals  # type: ignore[attr-defined]

    assert len(state["flight"].replies) + len(state["flight"].pending) <= WINDOW
    assert len(state["flight"].cached) <= WINDOW
    assert max(len(state["waiting"]), state["span"].rows) <= WINDOW


def test_a_failed_row_raises_after_the_rows_before_it(clock: ManualClock) -> None:
    server = FakeServer(clock, work=lambda row: failure(at_ms=9) if row.text == "text 2" else result_of(row))
    vectors = server.iterate(offline_core(clock).iter_embed("passage", WINDOW, None), texts_of(5))

    assert [next(vectors).tolist(), next(vectors).tolist()] == expected(texts_of(2))
    with pytest.raises(RowFailed):
        next(vectors)


def test_a_bad_text_raises_with_its_position_in_the_whole_source(clock: ManualClock, server: FakeServer) -> None:
    texts = [*texts_of(2 * WINDOW), " "]

    with pytest.raises(InvalidText, match=f"text {2 * WINDOW} is empty"):
        list(server.iterate(offline_core(clock).iter_embed("passage", WINDOW, None), texts))


def test_vectors_of_another_dimension_are_an_error_here_too(clock: ManualClock, server: FakeServer) -> None:
    server.put(passage("text 1"), EmbeddingReply(vector=bytes(8)))

    with pytest.raises(MalformedMessage):
        list(server.iterate(offline_core(clock).iter_embed("passage", WINDOW, None), texts_of(3)))


@pytest.mark.parametrize("window", [0, -1, True, 1.5, "8", None])
def test_a_window_is_a_whole_number_of_1_or_more(clock: ManualClock, server: FakeServer, window: Any) -> None:
    with pytest.raises(InvalidRequest):
        list(server.iterate(offline_core(clock).iter_embed("passage", window, None), ["a"]))


def test_a_bad_kind_is_refused_before_a_text_is_read(clock: ManualClock, server: FakeServer) -> None:
    with pytest.raises(InvalidRequest):
        list(server.iterate(offline_core(clock).iter_embed("pair", WINDOW, None), ["a"]))
    assert server.pulled == 0


def test_the_timeout_counts_from_the_last_progress_and_not_from_the_start(clock: ManualClock) -> None:
    def slow(row: Row) -> Reply:
        clock.advance(8.0)
        return result_of(row)

    server = FakeServer(clock, work=slow)
    server.rows_per_wait = 1
    started = clock()

    vectors = list(server.iterate(offline_core(clock).iter_embed("passage", WINDOW, 10.0), texts_of(20)))

    assert len(vectors) == 20
    assert clock() - started > 100


def test_no_progress_for_the_timeout_raises_with_the_bulk_lanes_state(clock: ManualClock) -> None:
    server = FakeServer(clock, work=lambda row: None if row.text == "text 3" else result_of(row))
    core = offline_core(clock, bulk_timeout_s=60.0)
    started = clock()

    with pytest.raises(ResultTimeout, match="lane bulk of embed") as caught:
        list(server.iterate(core.iter_embed("passage", WINDOW, None), texts_of(5)))

    assert "for 1 rows" in str(caught.value)
    assert clock() - started == pytest.approx(60.0, abs=1.0)


def test_the_time_a_slow_consumer_takes_is_not_the_queues(clock: ManualClock, server: FakeServer) -> None:
    server.rows_per_wait = 2
    vectors = []

    for vector in server.iterate(offline_core(clock).iter_embed("passage", WINDOW, 1.0), texts_of(3 * WINDOW)):
        clock.advance(30.0)
        vectors.append(vector)

    assert np.array_equal(np.stack(vectors), np.stack([vector_of(text) for text in texts_of(3 * WINDOW)]))


def test_a_full_bulk_lane_is_waited_for(server: FakeServer) -> None:
    server.full_calls = 4
    texts = texts_of(2 * WINDOW)

    assert embed(server, texts) == expected(texts)
