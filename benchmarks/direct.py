"""What a user would write instead of a queue: fastembed and onnxruntime in their own process, on the same models."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from fastembed.rerank.cross_encoder import TextCrossEncoder

from producer.settings import load
from workers.budget import batches
from workers.models.offline import MODEL_FILE, embedder_directory, reranker_directory
from workers.settings import WorkerSettings

__all__ = ["embedder", "reranker", "sorted_loop"]

_EMBEDDER = "benchmarks/embedder"
_RERANKER = "benchmarks/reranker"
_NOWHERE = ModelSource(hf="none/none")
"""fastembed wants a source; it is never asked when the directory is given."""

Array = np.ndarray[Any, Any]


def embedder() -> TextEmbedding:
    """The pools' offline embedder as anybody loads it with fastembed, all else by default."""
    directory = embedder_directory(_cache())
    if not _is_known(TextEmbedding, _EMBEDDER):
        TextEmbedding.add_custom_model(
            model=_EMBEDDER,
            pooling=PoolingType.MEAN,
            normalization=True,
            sources=_NOWHERE,
            dim=384,
            model_file=MODEL_FILE,
        )
    return TextEmbedding(_EMBEDDER, specific_model_path=str(directory))


def reranker() -> TextCrossEncoder:
    """The pools' offline reranker, likewise."""
    directory = reranker_directory(_cache())
    if not _is_known(TextCrossEncoder, _RERANKER):
        TextCrossEncoder.add_custom_model(model=_RERANKER, sources=_NOWHERE, model_file=MODEL_FILE)
    return TextCrossEncoder(_RERANKER, specific_model_path=str(directory))


def sorted_loop(model: TextEmbedding, texts: Sequence[str], budget_tokens: int) -> Array:
    """Embed as fast as one session can: tokenised once, sorted by length, at most so many padded tokens in a batch.

    Gives float32, shape (n, dimension), in the order of the texts: mean-pooled and normalised as fastembed does.
    """
    inner: Any = model.model
    encodings = inner.tokenizer.encode_batch(list(texts))
    ids = [
        np.array(one.ids, dtype=np.int64)[np.array(one.attention_mask, dtype=bool)] for one in encodings
    ]  # without the padding that fastembed's tokenizer adds
    names = {node.name for node in inner.model.get_inputs()}
    vectors: list[tuple[int, Array]] = []
    for batch in batches([len(own) for own in ids], budget_tokens):
        vectors += zip(batch, _run(inner.model, names, [ids[number] for number in batch]), strict=True)
    return np.stack([vector for _, vector in sorted(vectors, key=lambda pair: pair[0])])


def _run(session: Any, names: set[str], ids: Sequence[Array]) -> Array:
    tokens = np.zeros((len(ids), max(map(len, ids))), dtype=np.int64)
    mask = np.zeros_like(tokens)
    for row, own in enumerate(ids):
        tokens[row, : len(own)] = own
        mask[row, : len(own)] = 1
    inputs = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
    states = session.run(None, {name: value for name, value in inputs.items() if name in names})[0]
    pooled = (states * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1)[:, None]
    return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True), dtype=np.float32)


def _cache() -> Path:
    """The folder in which the pools keep their models."""
    return load(WorkerSettings, os.environ).cache_path


def _is_known(model_class: type[TextEmbedding | TextCrossEncoder], name: str) -> bool:
    return any(str(model["model"]).lower() == name for model in model_class.list_supported_models())
