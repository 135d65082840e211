"""The wire protocol on every kind of server: round trips, the cache, single flight, the two lanes."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from producer.wire.keys import DIGEST_BYTES, Lane
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import FakeModel, Gate, score_of, vector_of, vectors_of
from tests.integration.harness.processes import ROOT
from tests.integration.harness.site import Site, passage
from tests.integration.harness.waiting import wait_until

TEXTS = [f"text number {number}" for number in range(50)]


def test_round_trips_of_the_embed_calls(site: Site) -> None:
    with Engine(site), site.producer() as producer:
        alone = producer.embed("Where can I swim?", kind="query")
        many = producer.embed_many(TEXTS)
        streamed = list(producer.iter_embed(iter(f"bulk {text}" for text in TEXTS), window=7))
        site.await_empty()

    assert alone.dtype == np.float32
    assert alone.shape == (8,)
    assert np.array_equal(alone, vector_of("Where can I swim?"))
    assert many.dtype == np.float32
    assert many.shape == (50, 8)
    assert np.array_equal(many, vectors_of(TEXTS))
    assert np.array_equal(np.stack(streamed), vectors_of([f"bulk {text}" for text in TEXTS]))


def test_a_rerank_sorts_cuts_and_caches_by_pair(site: Site) -> None:
    with Engine(site, task="rerank") as engine, site.producer() as producer:
        first = producer.rerank("a query", TEXTS[:20], top_n=5)
        again = producer.rerank("a query", TEXTS[:25])
        site.await_empty("rerank")

    expected = sorted(range(20), key=lambda index: (-score_of("a query", TEXTS[index]), index))
    assert [result.index for result in first.results] == expected[:5]
    assert [result.document for result in first.results] == [TEXTS[index] for index in expected[:5]]
    assert {result.index: result.score for result in again.results} == {
        index: score_of("a query", text) for index, text in enumerate(TEXTS[:25])
    }
    assert (first.cached_pairs, again.cached_pairs, len(engine.model.computed)) == (0, 20, 25)
    assert not first.fallback_used


def test_a_cached_row_adds_no_job(site: Site) -> None:
    with Engine(site) as engine, site.producer() as producer:
        producer.embed_many(TEXTS)
        last = site.last_id(Lane.INTERACTIVE)
        again = producer.embed_result(TEXTS)
        partly = producer.embed_result(["new one", *TEXTS])

    assert all(again.cached)
    assert partly.cached == (False, *[True] * 50)
    assert engine.model.computed[50:] == ["new one"]
    assert site.last_id(Lane.INTERACTIVE) > last
    assert np.array_equal(again.embeddings, vectors_of(TEXTS))


def test_a_fully_cached_call_leaves_the_stream_alone(site: Site) -> None:
    with Engine(site), site.producer() as producer:
        producer.embed_many(TEXTS)
        last = site.last_id(Lane.INTERACTIVE)
        producer.embed_many(TEXTS)
        assert list(producer.iter_embed(TEXTS))

        assert site.last_id(Lane.INTERACTIVE) == last
        assert site.waiting() == site.waiting(Lane.BULK) == 0


def test_duplicates_are_sent_once_and_order_is_kept(site: Site) -> None:
    texts = ["b", "a", "b", " a\n", "c", "b"]
    with Engine(site) as engine, site.producer() as producer:
        vectors = producer.embed_many(texts)

    assert np.array_equal(vectors, vectors_of(["b", "a", "b", "a", "c", "b"]))
    assert sorted(map(str, engine.model.computed)) == ["a", "b", "c"]


def test_two_threads_share_the_work_of_the_same_rows(site: Site) -> None:
    barrier = threading.Barrier(2)

    def ask() -> object:
        with site.producer() as producer:
            producer.cached(["connect"])
            barrier.wait(30)
            return producer.embed_many(TEXTS)

    with Engine(site) as engine, ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(ask) for _ in range(2)]
        for answer in asked:
            assert np.array_equal(answer.result(60), vectors_of(TEXTS))  # type: ignore[arg-type]
    assert len(engine.model.computed) == 50


def test_two_processes_share_the_work_of_the_same_rows(site: Site) -> None:
    gate = f"{site.namespace}:gate"
    told = {"url": site.url, "namespace": site.namespace, "model": site.model, "texts": TEXTS, "gate": gate}

    def ask(_number: int) -> str:
        command = [sys.executable, "-m", "tests.integration.harness.asking"]
        done = subprocess.run(
            command, input=json.dumps(told), cwd=ROOT, text=True, capture_output=True, timeout=90, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    with Engine(site) as engine, ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(ask, number) for number in range(2)]
        wait_until(lambda: site.client.llen(f"{gate}:ready") == 2, 60, what="two processes ready to start")
        site.client.rpush(f"{gate}:start", 1, 1)
        for answer in asked:
            assert np.array_equal(np.array(json.loads(answer.result(60))), vectors_of(TEXTS))
    assert len(engine.model.computed) == 50


def test_a_second_caller_attaches_to_the_flight(site: Site) -> None:
    with site.producer() as one, site.producer() as other, ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(producer.embed_many, TEXTS) for producer in (one, other)]
        wait_until(lambda: {len(site.waiters(passage(text))) for text in TEXTS} == {3}, what="two waiters for each row")
        assert site.waiting() == 50
        with Engine(site) as engine:
            for answer in asked:
                assert np.array_equal(answer.result(60), vectors_of(TEXTS))
    assert len(engine.model.computed) == 50


def test_an_interactive_row_overtakes_a_flood(site: Site) -> None:
    gate = Gate()
    with (
        Engine(site, FakeModel(gate), batch_tokens=16) as engine,
        ThreadPoolExecutor(2) as threads,
        site.producer() as flooder,
        site.producer() as producer,
    ):
        flood = threads.submit(lambda: list(flooder.iter_embed(map("flood {}".format, range(400)), window=400)))
        wait_until(lambda: gate.arrived == 1 and site.waiting(Lane.BULK) == 400, what="a flood before the model")
        urgent = threads.submit(producer.embed, "urgent", "passage")
        wait_until(lambda: site.waiting() == 1, what="the interactive job")
        gate.let(2)
        assert np.array_equal(urgent.result(30), vector_of("urgent"))
        assert not flood.done()
        gate.open()
        assert len(flood.result(60)) == 400
    assert "urgent" not in engine.model.batches[0]
    assert "urgent" in engine.model.batches[1]


def test_a_row_of_the_flood_is_fetched_forward_by_an_interactive_caller(site: Site) -> None:
    gate = Gate()
    texts = [f"flood {number}" for number in range(300)]
    with (
        Engine(site, FakeModel(gate), batch_tokens=16) as engine,
        ThreadPoolExecutor(2) as threads,
        site.producer() as flooder,
        site.producer() as producer,
    ):
        flood = threads.submit(lambda: list(flooder.iter_embed(texts, window=300)))
        wait_until(lambda: gate.arrived == 1 and site.waiting(Lane.BULK) == 300, what="a flood before the model")
        wanted = threads.submit(producer.embed, texts[-1], "passage")
        wait_until(lambda: site.waiting() == 1, what="the interactive job")
        gate.let(2)
        assert np.array_equal(wanted.result(30), vector_of(texts[-1]))
        assert not flood.done()
        gate.open()
        assert np.array_equal(np.stack(flood.result(60)), vectors_of(texts))
        site.await_empty()
    assert engine.model.computed.count(texts[-1]) == 1, "the flood's own entry finds the result"


def test_each_waiter_is_told_once_which_rows_are_ready(site: Site) -> None:
    with (
        site.producer() as one,
        site.producer() as other,
        ThreadPoolExecutor(2) as threads,
        site.client.pubsub() as ears,
    ):
        ears.psubscribe(f"{site.namespace}:hint:*")
        assert ears.get_message(timeout=10)["type"] == "psubscribe"
        asked = [threads.submit(producer.embed_many, TEXTS) for producer in (one, other)]
        wait_until(lambda: {len(site.waiters(passage(text))) for text in TEXTS} == {3}, what="two waiters for each row")
        with Engine(site):
            for answer in asked:
                answer.result(60)
            site.await_empty()
        heard: dict[bytes, bytes] = {}
        while message := ears.get_message(timeout=0.1):
            heard[message["channel"]] = heard.get(message["channel"], b"") + message["data"]
    assert len(heard) == 2
    for digests in heard.values():
        told = [digests[first : first + DIGEST_BYTES] for first in range(0, len(digests), DIGEST_BYTES)]
        assert sorted(told) == sorted(passage(text).digest for text in TEXTS)
