"""Both clients as applications use them: asyncio, many threads, forks, closing, timeouts, fallbacks, long lists."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from producer import RerankResult, ResultTimeout
from producer.wire.keys import GROUP, Lane
from producer.wire.messages import ModelCard
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import DIMENSION, FakeModel, Gate, score_of, vector_of, vectors_of
from tests.integration.harness.processes import ROOT
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

TEXTS = [f"text number {number}" for number in range(50)]


def test_the_async_client_does_the_same(site: Site) -> None:
    async def scenario() -> None:
        async with site.async_producer() as producer:
            assert np.array_equal(await producer.embed("one"), vector_of("one"))
            assert np.array_equal(await producer.embed_many(TEXTS), vectors_of(TEXTS))
            result = await producer.embed_result(["new", *TEXTS])
            assert result.cached == (False, *[True] * 50)
            assert await producer.cached([TEXTS[0], "unknown"]) == [True, False]
            streamed = [vector async for vector in producer.iter_embed(TEXTS, window=7)]
            assert np.array_equal(np.stack(streamed), vectors_of(TEXTS))
            state = await producer.queue_state("embed")
            assert state.card is not None
            assert (state.card.model, state.card.dimension) == (site.model, DIMENSION)
            assert [other.task for other in await producer.queue_states()] == ["embed", "rerank"]

    with Engine(site):
        asyncio.run(scenario())
        site.await_empty()


def test_the_async_client_takes_texts_from_an_async_iterable(solo: Site) -> None:
    async def texts() -> AsyncIterator[str]:
        for text in TEXTS:
            await asyncio.sleep(0)
            yield text

    async def scenario() -> list[object]:
        async with solo.async_producer() as producer:
            return [vector async for vector in producer.iter_embed(texts(), window=8)]

    with Engine(solo):
        vectors = asyncio.run(scenario())
    assert np.array_equal(np.array(vectors), vectors_of(TEXTS))


def test_the_async_client_reranks(solo: Site) -> None:
    async def scenario() -> RerankResult:
        async with solo.async_producer() as producer:
            return await producer.rerank("a query", TEXTS, top_n=3)

    with Engine(solo, task="rerank"):
        ranking = asyncio.run(scenario())
    assert [result.score for result in ranking.results] == sorted(
        (score_of("a query", text) for text in TEXTS), reverse=True
    )[:3]


def test_fifty_calls_at_once_in_one_event_loop(solo: Site) -> None:
    async def scenario() -> None:
        async with solo.async_producer() as producer:
            vectors = await asyncio.gather(*(producer.embed(text) for text in TEXTS))
            assert np.array_equal(np.stack(vectors), vectors_of(TEXTS))
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert left == [], "close ends the listener's task"

    with Engine(solo) as engine:
        asyncio.run(scenario())
    assert len(engine.model.computed) == 50


def test_an_abandoned_async_iteration_leaves_the_client_usable(solo: Site) -> None:
    async def scenario() -> None:
        async with solo.async_producer() as producer:
            stream = producer.iter_embed(TEXTS, window=10)
            assert np.array_equal(await anext(stream), vector_of(TEXTS[0]))
            await stream.aclose()  # type: ignore[attr-defined]
            assert np.array_equal(await producer.embed("after"), vector_of("after"))

    with Engine(solo):
        asyncio.run(scenario())


def test_sixteen_threads_share_one_producer(solo: Site) -> None:
    barrier = threading.Barrier(16)

    def ask(number: int) -> bool:
        mine = [f"thread {number} text {index}" for index in range(10)]
        barrier.wait(30)
        return np.array_equal(producer.embed_many([*mine, *TEXTS]), vectors_of([*mine, *TEXTS]))

    with Engine(solo) as engine, solo.producer() as producer, ThreadPoolExecutor(16) as threads:
        assert all(threads.map(ask, range(16)))
    assert len(engine.model.computed) == 16 * 10 + 50


def test_a_producer_may_be_used_before_and_after_a_fork(solo: Site) -> None:
    command = [sys.executable, "-m", "tests.integration.harness.forking", solo.url, solo.namespace, solo.model]
    with Engine(solo) as engine:
        done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=120, check=False)
    assert done.stdout == "parent and children: ok\n", done.stderr
    assert len(engine.model.computed) == 3 + 4 + 1


def test_close_stops_the_listening_thread(solo: Site) -> None:
    with Engine(solo), solo.producer() as producer:
        assert not _listeners(), "no thread before something must be waited for"
        producer.embed("start it")
        assert _listeners()
    assert not _listeners()


def test_a_timeout_says_how_the_queue_stands(solo: Site) -> None:
    queue = solo.queue()
    with solo.producer() as producer:
        with pytest.raises(ResultTimeout, match=r"0 workers healthy.*headrace worker embed --model fake"):
            producer.embed_many(TEXTS[:5], timeout_s=0.1)
        solo.client.xgroup_create(queue.lane(Lane.INTERACTIVE), GROUP, id="0")
        solo.client.xreadgroup(GROUP, "host/0", {queue.lane(Lane.INTERACTIVE): ">"}, count=2)
        solo.beat("host/0")
        solo.beat("host/1", silent_ms=60_000)
        with pytest.raises(ResultTimeout) as late:
            producer.embed_many(TEXTS[:5], timeout_s=0.1)
    for part in ("for 5 rows", f"embed:{queue.tag}", "3 jobs waiting", "2 in flight", "1 workers healthy"):
        assert part in str(late.value)
    assert late.value.code == "result_timeout"


def test_lost_hints_cost_only_a_recheck(solo: Site) -> None:
    gate = Gate()
    with Engine(solo, FakeModel(gate)), solo.producer() as producer, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(producer.embed_many, TEXTS)
        wait_until(lambda: gate.arrived == 1, what="a batch before the model")
        assert solo.client.client_kill_filter(_type="pubsub") >= 1
        gate.open()
        assert np.array_equal(asked.result(30), vectors_of(TEXTS))
        assert np.array_equal(producer.embed("later"), vector_of("later"))


def test_a_rerank_without_workers_falls_back(solo: Site) -> None:
    documents = ["first", "second", "third"]
    with solo.producer() as producer:
        ranking = producer.rerank("query", documents, 2, fallback_scores=[0.1, 0.9, 0.5], timeout_s=0.2)
        with pytest.raises(ResultTimeout):
            producer.rerank("query", documents, timeout_s=0.2)
    assert [(result.index, result.document, result.score) for result in ranking.results] == [
        (1, "second", 0.9),
        (2, "third", 0.5),
    ]
    assert ranking.fallback_used
    assert (ranking.fallback_reason or "").startswith("result_timeout: ")


def test_a_thousand_documents_in_one_rerank(solo: Site) -> None:
    documents = [f"document {number}" for number in range(1000)]
    with Engine(solo, task="rerank") as engine, solo.producer() as producer:
        ranking = producer.rerank("query", documents)
        solo.await_empty("rerank")
    assert sorted(result.index for result in ranking.results) == list(range(1000))
    assert all(result.score == score_of("query", result.document) for result in ranking.results)
    assert len(engine.model.computed) == 1000


def test_the_model_card_says_what_serves(solo: Site) -> None:
    with Engine(solo), solo.producer() as producer:
        producer.embed("one")
        card = producer.queue_state("embed").card
    assert card == ModelCard(
        task="embed",
        model=solo.model,
        dimension=DIMENSION,
        max_tokens=0,
        weights_sha256="fake",
        query_prefix="",
        passage_prefix="",
        batch_invariant=True,
        method="",
    )


def _listeners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "headrace-listener"]


def test_hundreds_of_calls_at_once_share_a_few_connections(solo: Site) -> None:
    texts = [f"text {number}" for number in range(300)]

    async def ask() -> None:
        async with solo.async_producer() as producer:
            vectors = await asyncio.gather(*(producer.embed(text) for text in texts))
        assert all(np.array_equal(vector, vector_of(text)) for vector, text in zip(vectors, texts, strict=True))

    before = int(solo.client.info("stats")["total_connections_received"])
    with Engine(solo):
        asyncio.run(ask())
        with solo.producer() as producer, ThreadPoolExecutor(150) as threads:
            vectors = list(threads.map(producer.embed, [f"other {text}" for text in texts]))
    assert all(np.array_equal(vector, vector_of(f"other {text}")) for vector, text in zip(vectors, texts, strict=True))
    after = int(solo.client.info("stats")["total_connections_received"])
    assert after - before < 150


def test_a_cancelled_call_ends_whenever_it_is_cancelled(solo: Site) -> None:
    """Before Python 3.12 a cancellation could be lost, and the call waited out its time."""

    async def ask() -> None:
        async with solo.async_producer(timeout_s=600.0) as producer:
            await producer.cached(["connect"])
            for number in range(100):
                asked = asyncio.create_task(producer.embed(f"nobody is there for {number}"))
                for _ in range(number % 25):
                    await asyncio.sleep(0)
                asked.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.wait_for(asyncio.shield(asked), 20)
                assert asked.cancelled()

    asyncio.run(ask())


def test_a_call_may_be_made_while_its_task_is_being_cancelled(solo: Site) -> None:
    async def clean_up() -> None:
        async with solo.async_producer() as producer:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                assert np.array_equal(await producer.embed("last words"), vector_of("last words"))
                raise

    async def ask() -> None:
        cleaning = asyncio.create_task(clean_up())
        await asyncio.sleep(0.01)
        cleaning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cleaning

    with Engine(solo):
        asyncio.run(ask())
