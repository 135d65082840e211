"""The flow of embed: results, order, errors with their texts; against a server of dicts."""

import math
from typing import Any

import numpy as np
import pytest

from producer.errors import (
    InvalidRequest,
    MalformedMessage,
    ModelNotServed,
    QueueFull,
    RedisUnavailable,
    ResultTimeout,
    RowFailed,
)
from producer.wire.keys import QueueKeys
from producer.wire.messages import EmbeddingReply, ScoreReply
from tests.unit.fakes import (
    EMBED_QUEUE,
    RERANK_QUEUE,
    FakeServer,
    ManualClock,
    failure,
    nobody,
    offline_core,
    pair,
    passage,
    query,
    queue_state,
    vector_of,
)


def test_vectors_come_in_the_order_of_the_texts(clock: ManualClock, server: FakeServer) -> None:
    texts = ["c", "a", "b", "a", "c\n"]

    result = server.run(offline_core(clock).embed(texts, "passage", None))

    assert result.embeddings.dtype == np.float32
    assert np.array_equal(result.embeddings, np.stack([vector_of(text.strip()) for text in texts]))
    assert server.sent == ["c", "a", "b"]
    assert (result.model, result.dimension, result.cached) == ("offline", 4, (False,) * 5)


def test_a_result_says_which_vectors_were_cached_and_how_long_it_took(clock: ManualClock, server: FakeServer) -> None:
    server.put(query("hit"))

    result = server.run(offline_core(clock).embed(["hit", "miss", "hit"], "query", None))

    assert result.cached == (True, False, True)
    assert result.latency_ms == pytest.approx(1.0)
    assert server.sent == ["miss"]


def test_query_and_passage_of_one_text_are_two_entries(clock: ManualClock, server: FakeServer) -> None:
    server.put(query("text"))

    assert server.run(offline_core(clock).embed(["text"], "passage", None)).cached == (False,)


def test_no_texts_give_an_empty_result_without_any_job(clock: ManualClock, server: FakeServer) -> None:
    result = server.run(offline_core(clock).embed([], "passage", None))

    assert result.embeddings.shape == (0, 0)
    assert server.enqueued == []


def test_cached_tells_without_fetching_or_computing(clock: ManualClock, server: FakeServer) -> None:
    server.put(passage("a"))

    assert server.run(offline_core(clock).cached(["a", "b", "a\n"], "passage")) == [True, False, True]
    assert (server.lookups, server.enqueued) == ([], [])


def test_a_row_that_a_worker_could_not_compute_raises_with_the_workers_code(clock: ManualClock) -> None:
    server = FakeServer(clock, work=lambda row: failure("text_too_long", "text is 70000 bytes long", at_ms=9))

    with pytest.raises(RowFailed, match="70000 bytes") as caught:
        server.run(offline_core(clock).embed(["a"], "query", None))
    assert caught.value.code == "text_too_long"


def test_a_failure_of_an_earlier_call_does_not_fail_this_one(clock: ManualClock, server: FakeServer) -> None:
    server.put(query("a"), failure(at_ms=1))

    result = server.run(offline_core(clock).embed(["a"], "query", None))

    assert np.array_equal(result.vector(0), vector_of("a"))


def test_a_reply_of_the_other_task_is_malformed(clock: ManualClock, server: FakeServer) -> None:
    server.put(query("a"), ScoreReply(score=1.0))
    server.put(pair("d"), EmbeddingReply(vector=b"abcd"))

    with pytest.raises(MalformedMessage):
        server.run(offline_core(clock).embed(["a"], "query", None))
    with pytest.raises(MalformedMessage):
        server.run(offline_core(clock).rerank("q", ["d"], None, None, None))


def test_mixed_dimensions_are_an_error(clock: ManualClock, server: FakeServer) -> None:
    server.put(query("a"), EmbeddingReply(vector=bytes(8)))
    server.put(query("b"), EmbeddingReply(vector=bytes(12)))

    with pytest.raises(MalformedMessage, match="dimensions"):
        server.run(offline_core(clock).embed(["a", "b"], "query", None))


def test_a_full_lane_raises(clock: ManualClock, server: FakeServer) -> None:
    server.full_calls = 1

    with pytest.raises(QueueFull):
        server.run(offline_core(clock).embed(["a"], "query", None))


@pytest.mark.parametrize("timeout_s", [None, 3.0])
def test_a_timeout_comes_when_it_is_due_and_carries_the_state_of_the_lane(
    clock: ManualClock, timeout_s: float | None
) -> None:
    server = FakeServer(clock, work=nobody)
    server.state = queue_state(EMBED_QUEUE, waiting=41, in_flight=5, workers=2)
    started = clock()

    with pytest.raises(ResultTimeout) as caught:
        server.run(offline_core(clock, timeout_s=12.0).embed(["a", "b"], "query", timeout_s))

    text = str(caught.value)
    assert clock() - started == pytest.approx(timeout_s or 12.0)
    assert f"no result within {timeout_s or 12:g} s for 2 rows" in text
    assert "lane interactive" in text
    assert "41 jobs waiting and 5 in flight, 2 workers healthy" in text
    assert "start a pool" not in text


@pytest.mark.parametrize(("task", "queue"), [("embed", EMBED_QUEUE), ("rerank", RERANK_QUEUE)])
def test_a_timeout_without_workers_says_how_to_start_a_pool(clock: ManualClock, task: str, queue: QueueKeys) -> None:
    server = FakeServer(clock, work=nobody)
    core = offline_core(clock)
    assert core.queues["embed" if task == "embed" else "rerank"] == queue
    flow: Any = core.embed(["a"], "query", 1) if task == "embed" else core.rerank("q", ["d"], None, None, 1)

    with pytest.raises(ResultTimeout, match=f"headrace worker {task} --model offline"):
        server.run(flow)


def test_a_timeout_without_a_pool_names_the_models_that_are_served(clock: ManualClock) -> None:
    server = FakeServer(clock, work=nobody)
    server.pools = {b"embed:mini-1": b"acme/mini", b"rerank:other-2": b"acme/other"}

    with pytest.raises(ModelNotServed, match=r"'offline' is not served, pools have run for: acme/mini$"):
        server.run(offline_core(clock).embed(["a"], "query", 1))


def test_a_timeout_is_one_even_if_the_queue_cannot_be_inspected(clock: ManualClock) -> None:
    server = FakeServer(clock, work=nobody)
    server.state = RedisUnavailable("Redis cannot be reached: gone")

    with pytest.raises(ResultTimeout, match="gone"):
        server.run(offline_core(clock).embed(["a"], "query", 1))


@pytest.mark.parametrize("timeout_s", [0, -1, math.nan, math.inf])
def test_a_timeout_that_is_none_is_refused_before_anything_is_done(clock: ManualClock, timeout_s: float) -> None:
    server = FakeServer(clock)

    with pytest.raises(InvalidRequest):
        server.run(offline_core(clock).embed(["a"], "query", timeout_s))
    assert server.lookups == []


def test_known_queues_are_the_registered_ones_and_our_own_each_once_in_order(clock: ManualClock) -> None:
    core = offline_core(clock, namespace="blue")
    registered = {b"rerank:other-1": b"x", b"embed:offline-03769976": b"offline", b"embed:a:b-1": b"x"}

    queues = core.known_queues(registered)

    assert [(queue.task, queue.tag) for queue in queues] == [
        ("embed", "a:b-1"),
        ("embed", "offline-03769976"),
        ("rerank", "offline-bc6f7ab0"),
        ("rerank", "other-1"),
    ]
    assert {queue.namespace for queue in queues} == {"blue"}
