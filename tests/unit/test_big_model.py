"""The model that the memory benchmark builds: its graph, at a size that a test can afford."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from benchmarks import big_model
from workers.models.fastembed_models import load_embedder


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in {"HIDDEN": 32, "HEADS": 2, "INTERMEDIATE": 64, "VOCABULARY": 3_000}.items():
        monkeypatch.setattr(big_model, name, value)
    return big_model.big_model_directory(tmp_path, layers=2)


def test_it_embeds_and_padding_changes_nothing(directory: Path, tmp_path: Path) -> None:
    model = load_embedder(str(directory), cache_dir=tmp_path, threads=1)
    words = big_model.words()
    texts = [" ".join(words[:5]), " ".join(words[10:110])]

    together = model.embed(texts)

    assert together.shape == (2, 32)
    assert np.isfinite(together).all()
    assert np.allclose(together, np.concatenate([model.embed([text]) for text in texts]), atol=1e-5)
    assert [row.tokens for row in model.measure(texts)] == [7, 102]
    assert model.max_tokens == 512


def test_it_is_built_once(directory: Path, tmp_path: Path) -> None:
    before = (directory / "model.onnx_data").stat().st_mtime_ns

    assert big_model.big_model_directory(tmp_path, layers=2) == directory
    assert (directory / "model.onnx_data").stat().st_mtime_ns == before


def test_onnxruntime_fuses_what_it_fuses_in_an_export(directory: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(directory / "model.onnx"), options, providers=["CPUExecutionProvider"])
    operators = [
        node.op_type for node in onnx.load(options.optimized_model_filepath, load_external_data=False).graph.node
    ]

    assert operators.count("SkipLayerNormalization") == 5
    assert operators.count("BiasGelu") == 2
    assert "Erf" not in operators
    assert "ReduceMean" not in operators
