"""Real models through real pools: the same numbers as fastembed called directly, whatever shared the batch."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from fastembed.rerank.cross_encoder import TextCrossEncoder

from producer.errors import ConfigurationError
from tests.integration.conftest import OfflinePools
from tests.integration.harness.waiting import wait_until
from workers.models import offline as offline_models
from workers.models.fastembed_models import load_reranker

WORDS = (
    *("river", "wheel", "mill", "water", "turn", "night", "channel", "stone"),
    *("grain", "flour", "miller", "bank", "sluice", "gate", "flood", "meadow"),
)
TEXTS = [" ".join(WORDS[(number * 7 + step) % 16] for step in range(1 + number * number // 9)) for number in range(40)]
LONG = " ".join(WORDS[number % 16] for number in range(600))
QUERIES = ["how is grain milled", "where does the river flood", "night", "stone " * 40]

VECTOR_TOLERANCE = 1e-5
SCORE_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def embedder(model_cache: Path) -> TextEmbedding:
    """The offline embedder, as a user of fastembed would load it."""
    TextEmbedding.add_custom_model(
        model="test/direct-embedder",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="test/none"),
        dim=384,
        model_file="model.onnx",
    )
    directory = offline_models.embedder_directory(model_cache)
    return TextEmbedding("test/direct-embedder", specific_model_path=str(directory), threads=1)


@pytest.fixture(scope="module")
def reranker(model_cache: Path) -> TextCrossEncoder:
    """The offline reranker, likewise."""
    source = ModelSource(hf="test/none")
    TextCrossEncoder.add_custom_model(model="test/direct-reranker", sources=source, model_file="model.onnx")
    directory = offline_models.reranker_directory(model_cache)
    return TextCrossEncoder("test/direct-reranker", specific_model_path=str(directory), threads=1)


def test_vectors_are_fastembeds_in_company_and_alone(offline: OfflinePools, embedder: TextEmbedding) -> None:
    direct = _direct(embedder, TEXTS)
    with offline.site.producer() as producer:
        together = producer.embed_many(TEXTS, kind="passage")
        # This model has no prefixes, so that a query has the same vector and yet a cache entry of its own.
        alone = np.stack([producer.embed(text, kind="query") for text in TEXTS])
        cached = producer.embed_many(TEXTS, kind="passage")
        counters = producer.queue_state("embed").counters
    assert together.shape == (40, 384)
    assert np.abs(together - direct).max() < VECTOR_TOLERANCE
    assert np.abs(alone - direct).max() < VECTOR_TOLERANCE
    assert np.array_equal(cached, together)
    assert counters.get("dead_interactive", 0) == 0


def test_scores_are_fastembeds_with_several_queries_at_once(offline: OfflinePools, reranker: TextCrossEncoder) -> None:
    documents = [text for text in TEXTS if text][:20]
    direct = [list(reranker.rerank(query, documents, batch_size=1)) for query in QUERIES]
    with offline.site.producer() as producer, ThreadPoolExecutor(len(QUERIES)) as threads:
        rankings = list(threads.map(lambda query: producer.rerank(query, documents), QUERIES))
    for ranking, expected in zip(rankings, direct, strict=True):
        scores = {result.index: result.score for result in ranking.results}
        found = np.array([scores[index] for index in range(len(documents))])
        assert np.abs(found - np.array(expected)).max() < SCORE_TOLERANCE
        assert [result.score for result in ranking.results] == sorted(found.tolist(), reverse=True)


def test_a_long_text_is_truncated_as_the_model_does(offline: OfflinePools, embedder: TextEmbedding) -> None:
    longer = f"{LONG} and more"
    with offline.site.producer() as producer:
        vectors = producer.embed_many([LONG, longer])
        truncated = wait_until(lambda: producer.queue_state("embed").counters.get("truncated", 0), what="a count")
    assert np.abs(vectors - _direct(embedder, [LONG, longer])).max() < VECTOR_TOLERANCE
    assert np.array_equal(vectors[0], vectors[1]), "the ends are cut off"
    assert truncated >= 1
    assert offline.pools["embed"].stderr.count("256 tokens are truncated") == 1, "said once, not for each text"
    assert "river" not in offline.pools["embed"].stderr, "no log quotes a text"


def test_the_cards_describe_the_models(offline: OfflinePools) -> None:
    with offline.site.producer() as producer:
        embed, rerank = (producer.queue_state(task).card for task in ("embed", "rerank"))
    assert embed is not None
    assert (embed.model, embed.dimension, embed.max_tokens, embed.batch_invariant) == ("offline", 384, 256, True)
    assert rerank is not None
    assert (rerank.model, rerank.dimension, rerank.max_tokens, rerank.batch_invariant) == ("offline", 0, 512, True)
    assert len(embed.weights_sha256) == len(rerank.weights_sha256) == 64
    assert embed.weights_sha256 != rerank.weights_sha256


def test_heartbeats_tell_how_a_worker_stands(offline: OfflinePools) -> None:
    with offline.site.producer() as producer:
        producer.embed_many(["one more row", "and another"])
        (worker,) = producer.queue_state("embed").workers
        before = worker.heartbeat
        producer.embed_many(["a third row"])
        after = wait_until(lambda: _later_beat(producer, before.rows_done), what="a heartbeat with more rows")
    assert worker.healthy
    assert (before.model, before.dimension, before.model_loaded, before.state) == ("offline", 384, True, "running")
    assert {before.pid} == set(offline.pools["embed"].workers().values())
    assert before.started_at_ms <= before.progressed_at_ms <= before.beat_at_ms < after.beat_at_ms
    assert after.started_at_ms == before.started_at_ms
    assert after.in_flight_rows == 0
    assert after.rows_per_s > 0


def _later_beat(producer: Any, rows: int) -> Any:
    (worker,) = producer.queue_state("embed").workers
    return worker.heartbeat if worker.heartbeat.rows_done > rows and worker.heartbeat.in_flight_rows == 0 else None


def _direct(embedder: TextEmbedding, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    return np.stack([vector for text in texts for vector in embedder.embed([text])])


def test_an_embedder_is_no_reranker(model_cache: Path) -> None:
    directory = str(offline_models.embedder_directory(model_cache))

    with pytest.raises(ConfigurationError, match="no cross-encoder"):
        load_reranker(directory, cache_dir=model_cache, threads=1)
