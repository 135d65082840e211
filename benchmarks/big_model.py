"""Builds a model of multilingual-e5-large's true shape with random weights: `python -m benchmarks.big_model [LAYERS]`.

XLM-RoBERTa large (Conneau et al. 2020): 24 layers, 1,024 hidden units, 16 heads, 4,096 intermediate, 250,002 tokens
of vocabulary, 514 positions. The graph is written node by node as transformers exports it to ONNX (opset 14: layer
norm and gelu in their parts), so that onnxruntime's fusions find what they find in the real model; the weights lie
in one external file, as there. The tokenizer is a Unigram one with as many pieces, so that it takes its memory too.
"""

import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper

from producer.settings import load
from workers.settings import WorkerSettings

LAYERS, HIDDEN, HEADS, INTERMEDIATE, VOCABULARY, POSITIONS = 24, 1024, 16, 4096, 250_002, 514
MAX_TOKENS = 512
_PAD = 1
_SEED = 20261123
_PAGE_BYTES = 65_536
_BLOCK_ROWS = 4_096
_VERSION = 1
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def big_model_directory(cache_dir: Path | None = None, *, layers: int = LAYERS) -> Path:
    """Return a directory that `load_embedder` takes; built in the cache folder (2.24 GB) if it is not there yet."""
    cache_dir = cache_dir or load(WorkerSettings, os.environ).cache_path
    directory = cache_dir / "benchmarks" / f"xlmr-large-{layers}-layers-{_VERSION}"
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        unfinished = directory.parent / f".unfinished-{uuid.uuid4().hex}"
        unfinished.mkdir()
        try:
            _write_model(unfinished, layers)
            _write_tokenizer(unfinished)
            unfinished.rename(directory)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    return directory


def words() -> list[str]:
    """Words that are one token each: a text of n of them is n + 2 tokens long."""
    return [piece[1:] for piece, _ in _pieces()[len(_SPECIAL) + 256 : len(_SPECIAL) + 256 + 2_000]]


@dataclass(kw_only=True)
class _Graph:
    """Nodes in order, and initializers whose bytes go to the external file as they come."""

    weights: BinaryIO
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(_SEED))
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node, and return the name of its output."""
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=f"node_{name}", **attributes))
        return name

    def constant(self, name: str, value: Any, dtype: type = np.float32) -> str:
        """A small initializer, kept inside the graph; the same name is the same value."""
        if all(tensor.name != name for tensor in self.initializers):
            self.initializers.append(onnx.numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def weight(self, name: str, *shape: int, mean: float = 0.0) -> str:
        """A random initializer in the external file, from a page of its own on, written block by block."""
        self.weights.write(b"\0" * (-self.weights.tell() % _PAGE_BYTES))
        offset = self.weights.tell()
        for rows in _blocks(shape[0]):
            block = self.random.standard_normal((rows, *shape[1:]), dtype=np.float32) * np.float32(0.02)
            self.weights.write((block + np.float32(mean)).tobytes())
        tensor = TensorProto(name=name, dims=shape, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        entries = {"location": "model.onnx_data", "offset": offset, "length": self.weights.tell() - offset}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        self.initializers.append(tensor)
        return name

    def linear(self, name: str, source: str, inputs: int, outputs: int) -> str:
        """A dense layer as an export has it: MatMul, then Add with the bias in front."""
        product_ = self.add("MatMul", source, self.weight(f"{name}.weight", inputs, outputs))
        return self.add("Add", self.weight(f"{name}.bias", outputs), product_)

    def layer_norm(self, name: str, source: str) -> str:
        centred = self.add("Sub", source, self.add("ReduceMean", source, axes=[-1]))
        squared = self.add("Pow", centred, self.constant("two", 2.0))
        variance = self.add("ReduceMean", squared, axes=[-1])
        deviation = self.add("Sqrt", self.add("Add", variance, self.constant("epsilon", 1e-5)))
        scaled = self.add("Mul", self.add("Div", centred, deviation), self.weight(f"{name}.weight", HIDDEN, mean=1.0))
        return self.add("Add", scaled, self.weight(f"{name}.bias", HIDDEN))

    def gelu(self, source: str) -> str:
        error = self.add("Erf", self.add("Div", source, self.constant("root_two", 2**0.5)))
        raised = self.add("Mul", source, self.add("Add", error, self.constant("one", 1.0)))
        return self.add("Mul", raised, self.constant("half", 0.5))


def _blocks(rows: int) -> Iterator[int]:
    """The numbers of rows of each block, so that no more than 16 MB are made at a time."""
    for start in range(0, rows, _BLOCK_ROWS):
        yield min(_BLOCK_ROWS, rows - start)


def _write_model(directory: Path, layers: int) -> None:
    with (directory / "model.onnx_data").open("wb") as weights:
        graph = _Graph(weights=weights)
        hidden = _embeddings(graph)
        mask = _mask(graph)
        for layer in range(layers):
            hidden = _layer(graph, f"encoder.layer.{layer}", hidden, mask)
        graph.add("Identity", hidden)
    graph.nodes[-1].output[0] = "last_hidden_state"
    tokens = ["batch_size", "sequence_length"]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "xlm-roberta-large",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, tokens)
                for name in ("input_ids", "attention_mask")
            ],
            [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*tokens, HIDDEN])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", 14)],
        ir_version=8,
    )
    onnx.save(model, directory / "model.onnx")


def _embeddings(graph: _Graph) -> str:
    """Words, one token type, and positions, which count the tokens that are not padding."""
    present = graph.add("Not", graph.add("Equal", "input_ids", graph.constant("pad", _PAD, np.int64)))
    counted = graph.add("Cast", present, to=TensorProto.INT64)
    rank = graph.add("Mul", graph.add("CumSum", counted, graph.constant("axis_one", 1, np.int64)), counted)
    position = graph.add("Add", rank, graph.constant("pad", _PAD, np.int64))
    looked_up = graph.add("Gather", graph.weight("embeddings.word", VOCABULARY, HIDDEN), "input_ids")
    typed = graph.add("Add", looked_up, graph.weight("embeddings.type", 1, HIDDEN))
    placed = graph.add("Gather", graph.weight("embeddings.position", POSITIONS, HIDDEN), position)
    return graph.layer_norm("embeddings.norm", graph.add("Add", typed, placed))


def _mask(graph: _Graph) -> str:
    """What is added to the attention scores: 0 for a token, a large negative number for padding."""
    rows = graph.add("Unsqueeze", "attention_mask", graph.constant("axis_one_list", [1], np.int64))
    spread = graph.add("Unsqueeze", rows, graph.constant("axis_two_list", [2], np.int64))
    hidden = graph.add("Sub", graph.constant("one", 1.0), graph.add("Cast", spread, to=TensorProto.FLOAT))
    return graph.add("Mul", hidden, graph.constant("lowest", np.finfo(np.float32).min))


def _layer(graph: _Graph, name: str, source: str, mask: str) -> str:
    split = graph.constant("split_heads", [0, 0, HEADS, HIDDEN // HEADS], np.int64)
    heads = {}
    for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3])):
        linear = graph.linear(f"{name}.attention.{part}", source, HIDDEN, HIDDEN)
        heads[part] = graph.add("Transpose", graph.add("Reshape", linear, split), perm=order)
    scores = graph.add("MatMul", heads["query"], heads["key"])
    scaled = graph.add("Div", scores, graph.constant("root_head", (HIDDEN // HEADS) ** 0.5))
    weights = graph.add("Softmax", graph.add("Add", scaled, mask), axis=-1)
    context = graph.add("Transpose", graph.add("MatMul", weights, heads["value"]), perm=[0, 2, 1, 3])
    merged = graph.add("Reshape", context, graph.constant("merge_heads", [0, 0, HIDDEN], np.int64))
    attended = graph.add("Add", graph.linear(f"{name}.attention.output", merged, HIDDEN, HIDDEN), source)
    middle = graph.layer_norm(f"{name}.attention.norm", attended)
    raised = graph.gelu(graph.linear(f"{name}.intermediate", middle, HIDDEN, INTERMEDIATE))
    lowered = graph.add("Add", graph.linear(f"{name}.output", raised, INTERMEDIATE, HIDDEN), middle)
    return graph.layer_norm(f"{name}.output.norm", lowered)


def _pieces() -> list[tuple[str, float]]:
    """The vocabulary: special tokens, single characters, then words of two to four syllables; commonest first."""
    syllables = [first + second for first, second in product("bdfghjklmnprstvwz", "aeiou")]
    pieces = [*_SPECIAL, *(chr(code) for code in range(256))]
    for length in (2, 3):
        pieces += ["▁" + "".join(parts) for parts in product(syllables, repeat=length)]
    return [(piece, -float(np.log(rank + 2))) for rank, piece in enumerate(pieces[:VOCABULARY])]


def _write_tokenizer(directory: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors  # noqa: PLC0415 - only a build needs it

    tokenizer = Tokenizer(models.Unigram(_pieces(), unk_id=_SPECIAL.index("<unk>"), byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    for file, content in {
        "config.json": {"pad_token_id": _PAD, "model_type": "xlm-roberta", "hidden_size": HIDDEN},
        "tokenizer_config.json": {"model_max_length": MAX_TOKENS, **special},
        "special_tokens_map.json": special,
    }.items():
        (directory / file).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    print(big_model_directory(layers=int(sys.argv[1]) if len(sys.argv) > 1 else LAYERS))
