"""A second real model out of the packaged one: the first 256 of its 384 features, so with another dimension."""

import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from producer.results import Vector
from workers.models.offline import MODEL_FILE, embedder_directory

DIMENSION = 256


def make_small_model(cache_dir: Path, folder: Path) -> Path:
    """Make the directory of the model; the packaged one is prepared under `cache_dir`."""
    directory = folder / f"minilm-{DIMENSION}"
    shutil.copytree(embedder_directory(cache_dir), directory)
    model = onnx.load(str(directory / MODEL_FILE))
    states = model.graph.output[0]
    full = f"{states.name}_full"
    for node in model.graph.node:
        node.output[:] = [full if name == states.name else name for name in node.output]
    cut = {"cut_from": 0, "cut_to": DIMENSION, "cut_axis": 2}
    for name, value in cut.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array([value], dtype=np.int64), name))
    model.graph.node.append(helper.make_node("Slice", [full, *cut], [states.name]))
    states.type.tensor_type.shape.dim[2].dim_value = DIMENSION
    onnx.save(model, str(directory / MODEL_FILE))
    return directory


def small_vectors(vectors: Vector) -> Vector:
    """The model's vectors, computed from the packaged one's: the mean over tokens is of each feature alone."""
    cut = vectors[:, :DIMENSION]
    return np.asarray(cut / np.linalg.norm(cut, axis=1, keepdims=True), dtype=np.float32)
