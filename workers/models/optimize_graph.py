"""Makes faster ONNX graphs with onnxruntime's own tools: folding, fusing, int8 with dynamic or calibrated ranges."""

import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions

Feed = Mapping[str, np.ndarray[Any, Any]]
"""What one call of a session gets, by input name."""

LARGE_BYTES = 1_500_000_000
"""Beyond this, weights go into a file of their own: a protobuf message ends at 2 GiB. Folding may quadruple int8."""

_PRODUCTS = ("MatMul", "Gemm")


def fold(source: Path, target: Path, *, large: bool) -> None:
    """Write the graph with its constants folded, so that weights which are stored as int8 stand there as float32."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    if large:
        name = f"{target.name}.data"
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", name)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def fuse(source: Path, target: Path, *, attention: bool, large: bool) -> None:
    """Write the graph with the patterns of BERT-like encoders fused into single operators.

    `attention` also fuses whole attention blocks. It hides their products from the quantisers, so int8 goes without.
    """
    options = FusionOptions("bert")
    options.enable_attention = attention
    options.enable_embed_layer_norm = False  # it would want other input types, and saves next to nothing
    options.use_raw_attention_mask()
    with _quiet():
        # No heads and no width given: they are read from the graph.
        fused = optimizer.optimize_model(str(source), "bert", optimization_options=options, opt_level=0)
        drop_nan_guards(fused.model.graph)
        state_types(fused.model.graph)
        fused.save_model_to_file(str(target), use_external_data_format=large)
    del fused
    gc.collect()  # its parts refer to each other in circles, and hold the weights four times


def drop_nan_guards(graph: onnx.GraphProto) -> None:
    """Remove "0 where the softmax is NaN", as newer exporters write it: only a row without any token would be NaN.

    No such row is ever run, since a tokenizer always adds its special tokens; the checks afterwards would find it.
    """
    producers = {output: node for node in graph.node for output in node.output}
    replaced: dict[str, str] = {}
    for node in graph.node:
        guard = producers.get(node.input[0]) if node.op_type == "Where" else None
        if guard is None or guard.op_type != "IsNaN" or guard.input[0] != node.input[2]:
            continue
        source = producers.get(node.input[2])
        if source is not None and source.op_type == "Softmax":
            replaced[node.output[0]] = node.input[2]
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = replaced.get(name, name)
    kept = [node for node in graph.node if node.output[0] not in replaced]
    read = {name for node in kept for name in node.input}
    del graph.node[:]
    graph.node.extend(node for node in kept if node.op_type != "IsNaN" or node.output[0] in read)


def state_types(graph: onnx.GraphProto) -> None:
    """Write down the types of what products with weights read and give: those of their weights.

    Fused operators are not ONNX's own, so that inference may lose the types behind them, and the quantisers then pass
    over such products without an error.
    """
    constants = {tensor.name: tensor.data_type for tensor in graph.initializer}
    stated = {value.name for value in (*graph.value_info, *graph.input, *graph.output)}
    chosen = set(products_with_weights(graph))
    for node in graph.node:
        for name in (node.input[0], node.output[0]) if node.name in chosen else ():
            if name not in stated:
                graph.value_info.append(onnx.helper.make_tensor_value_info(name, constants[node.input[1]], None))
                stated.add(name)


def quantise_dynamic(source: Path, target: Path, *, seven_bit: bool, large: bool) -> None:
    """Write the graph with int8 weights per channel; ranges of activations are taken while it runs, over a batch."""
    with _quiet():
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=list(_PRODUCTS),
            per_channel=True,
            reduce_range=seven_bit,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
            extra_options={"MatMulConstBOnly": True},
        )


def quantise_static(source: Path, target: Path, feeds: Sequence[Feed], *, seven_bit: bool, large: bool) -> None:
    """Write the graph with int8 weights per channel and fixed ranges of activations, calibrated by running `feeds`.

    Only products with weights are quantised, and only their inputs: what they give, and all attention, stays float32.
    A range is the moving average of what each feed needs.
    """
    with _quiet():
        quantize_static(
            source,
            target,
            _Feeds(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_PRODUCTS),
            nodes_to_quantize=products_with_weights(onnx.load(source, load_external_data=False).graph),
            per_channel=True,
            reduce_range=seven_bit,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
            extra_options={
                "OpTypesToExcludeOutputQuantization": list(_PRODUCTS),
                "CalibMovingAverage": True,
            },
        )


def products_with_weights(graph: onnx.GraphProto) -> list[str]:
    """Names of the matrix products whose second factor is a constant."""
    constants = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type in _PRODUCTS and node.input[1] in constants]


class _Feeds(CalibrationDataReader):  # type: ignore[misc]
    """The calibration's inputs, one after the other."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the tools' advice, which is not for our users, out of their terminals."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
