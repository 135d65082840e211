"""Builds the offline cross-encoder out of the embedder's ONNX file: late interaction, with the same weights.

No packaged model scores a (query, document) pair, so the embedder's graph is rewired to do it. The pair goes
through the encoder once, as `[CLS] query [SEP] document [SEP]`, and each half is encoded almost as if alone:

- a token attends only to its own segment; `[CLS]` belongs to both (it sees both, and both see it);
- the document's position ids restart at 1, as if it followed `[CLS]`;
- every token has token type 0: `token_type_ids` only says which segment a token belongs to. `[CLS]` and the
  first `[SEP]` are the query's, the last `[SEP]` is the document's.

Score = MaxSim + cosine of the two mean-pooled segments, in [-2, 2]. MaxSim is the mean over query tokens of the
best cosine among document tokens (ColBERT, Khattab and Zaharia 2020, with a mean instead of the sum). `[CLS]` and
`[SEP]` are left out of both terms. An empty query scores 0; an empty document scores -1, so it ranks last.

Inputs `input_ids`, `attention_mask` and `token_type_ids`: int64 (batch, sequence), any padding side. Output
`score`: float32 (batch, 1).
"""

import sys
from pathlib import Path

import onnx
import onnx.parser

__all__ = ["build"]

OUTPUT_NAME = "score"

# Node of the export: (which of its inputs to replace, what the export feeds there, what the reranker feeds there).
_REWIRED = {
    "node_embedding_1": (1, "token_type_ids", "token_type"),
    "node_embedding_2": (1, "slice_1", "position"),
    "node_Where_92": (0, "bitwise_and_1", "visible"),
}

# ONNX's text syntax, in which <to = 1> means float32, 7 int64 and 9 bool. [CLS] is found by its place, not by its
# id: a text may contain the literal "[CLS]", which the tokenizer turns into the same id.
_BEFORE_ENCODER = """
segments (int64[batch, sequence] attention_mask, int64[batch, sequence] token_type_ids)
    => (int64[1] token_type, int64[batch, sequence] position, bool[batch, 1, sequence, sequence] visible)
{
    one = Constant <value_int = 1> ()
    token_type = Constant <value_ints = [0]> ()
    key_axes = Constant <value_ints = [1, 2]> ()
    row_axes = Constant <value_ints = [1, 3]> ()

    present = Cast <to = 9> (attention_mask)
    second = Cast <to = 9> (token_type_ids)
    first = Not (second)
    query = And (present, first)
    document = And (present, second)

    in_query = Cast <to = 7> (query)
    in_document = Cast <to = 7> (document)
    query_rank = CumSum (in_query, one)
    document_rank = CumSum (in_document, one)
    query_offset = Sub (query_rank, one)
    query_position = Mul (in_query, query_offset)
    document_position = Mul (in_document, document_rank)
    position = Add (query_position, document_position)

    leads = Equal (query_rank, one)
    shared = And (query, leads)
    segment_key = Unsqueeze (second, key_axes)
    segment_row = Unsqueeze (second, row_axes)
    shared_key = Unsqueeze (shared, key_axes)
    shared_row = Unsqueeze (shared, row_axes)
    present_key = Unsqueeze (present, key_axes)
    same_segment = Equal (segment_key, segment_row)
    either_shared = Or (shared_key, shared_row)
    reachable = Or (same_segment, either_shared)
    visible = And (reachable, present_key)
}
"""

# Padding and special tokens get weight 0. No token vector has length 0, as each leaves a layer normalisation.
_AFTER_ENCODER = """
scoring (int64[batch, sequence] input_ids, float[batch, sequence, 384] last_hidden_state,
         bool[batch, sequence] query, bool[batch, sequence] document) => (float[batch, 1] score)
{
    middle_axis = Constant <value_ints = [1]> ()
    last_axis = Constant <value_ints = [2]> ()
    cls_id = Constant <value_int = 101> ()
    sep_id = Constant <value_int = 102> ()
    worst_cosine = Constant <value_float = -1.0> ()
    one_token = Constant <value_float = 1.0> ()
    tiny = Constant <value_float = 1e-12> ()

    is_cls = Equal (input_ids, cls_id)
    is_sep = Equal (input_ids, sep_id)
    special = Or (is_cls, is_sep)
    word = Not (special)
    query_words = And (query, word)
    document_words = And (document, word)
    query_mask = Unsqueeze (query_words, middle_axis)
    document_mask = Unsqueeze (document_words, middle_axis)
    query_weight = Cast <to = 1> (query_mask)
    document_weight = Cast <to = 1> (document_mask)

    vector_length = ReduceL2 <axes = [-1], keepdims = 1> (last_hidden_state)
    unit = Div (last_hidden_state, vector_length)
    unit_columns = Transpose <perm = [0, 2, 1]> (unit)
    cosines = MatMul (unit, unit_columns)
    candidates = Where (document_mask, cosines, worst_cosine)
    best = ReduceMax <axes = [2], keepdims = 1> (candidates)
    best_sum = MatMul (query_weight, best)
    query_count = ReduceSum <keepdims = 1> (query_weight, last_axis)
    query_tokens = Max (query_count, one_token)
    maxsim = Div (best_sum, query_tokens)

    query_sum = MatMul (query_weight, last_hidden_state)
    document_sum = MatMul (document_weight, last_hidden_state)
    products = Mul (query_sum, document_sum)
    dot = ReduceSum <keepdims = 1> (products, last_axis)
    query_norm = ReduceL2 <axes = [2], keepdims = 1> (query_sum)
    document_norm = ReduceL2 <axes = [2], keepdims = 1> (document_sum)
    norms = Mul (query_norm, document_norm)
    safe_norms = Max (norms, tiny)
    pooled_cosine = Div (dot, safe_norms)

    total = Add (maxsim, pooled_cosine)
    score = Squeeze (total, last_axis)
}
"""


def build(embedder_onnx: Path, output: Path) -> None:
    """Write the cross-encoder made from `embedder_onnx` to `output`; the same input gives the same bytes.

    Raises ValueError if the file is not the export of all-MiniLM-L6-v2 that this module knows.
    """
    model = onnx.load(embedder_onnx)
    graph = model.graph
    before = onnx.parser.parse_graph(_BEFORE_ENCODER)
    after = onnx.parser.parse_graph(_AFTER_ENCODER)
    _rewire(graph)
    nodes = [*before.node, *graph.node, *after.node]
    used = _reachable(nodes, OUTPUT_NAME)
    kept_nodes = [node for node in nodes if used.intersection(node.output)]
    kept_weights = [weight for weight in graph.initializer if weight.name in used]
    rewired = onnx.GraphProto(name="headrace_offline_reranker", node=kept_nodes, initializer=kept_weights)
    rewired.input.extend(graph.input)
    rewired.output.extend(after.output)
    model.graph.CopyFrom(rewired)
    onnx.checker.check_model(model)
    output.write_bytes(model.SerializeToString(deterministic=True))


def _rewire(graph: onnx.GraphProto) -> None:
    """Feed the encoder the reranker's token types, positions and attention mask in place of its own."""
    nodes = {node.name: node for node in graph.node}
    for name, (index, exported, replacement) in _REWIRED.items():
        if name not in nodes or nodes[name].input[index] != exported:
            raise ValueError(f"not the expected export of all-MiniLM-L6-v2: {name} does not read {exported}")
        nodes[name].input[index] = replacement


def _reachable(nodes: list[onnx.NodeProto], output_name: str) -> set[str]:
    """Names of the tensors that `output_name` depends on; `nodes` are in topological order."""
    used = {output_name}
    for node in reversed(nodes):
        if used.intersection(node.output):
            used.update(node.input)
    return used


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m workers.models.offline_reranker IN OUT")
    build(Path(sys.argv[1]), Path(sys.argv[2]))
