"""What `optimize` refuses before and after it works, how it batches, and what it writes beside a model."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("sympy")

import onnx
import onnx.parser

from producer.errors import ConfigurationError
from workers.models.findings import FILE, Findings, method_of, write_findings
from workers.models.optimize import check_order, worth
from workers.models.optimize_graph import drop_nan_guards, products_with_weights, state_types
from workers.models.optimize_plan import Order
from workers.models.optimize_trial import refusal

FOUND = Findings(
    source="offline",
    source_sha256="ab",
    task="embed",
    method="int8 static",
    agreement=0.99,
    ndcg_at_10_before=0.87,
    ndcg_at_10_after=0.865,
    batch_invariant=True,
    speedup=1.8,
    onnxruntime="1.32.0",
)
GUARDED = """
<ir_version: 8, opset_import: ["" : 17]>
guarded (float[N, 4] x) => (float[N, 4] y)
<float[4, 4] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, float zero = {0}>
{
    [product] p = MatMul (x, w)
    [both] q = MatMul (x, p)
    s = Softmax (p)
    n = IsNaN (s)
    g = Where (n, zero, s)
    y = Mul (g, g)
}
"""


def order(out_dir: Path, model: str = "offline") -> Order:
    return Order(task="embed", model=model, out_dir=out_dir)


def test_an_out_dir_that_is_taken_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()

    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(ConfigurationError, match="exists"):
            check_order(order(taken))
    with pytest.raises(ConfigurationError, match="no folder"):
        check_order(order(tmp_path / "none" / "out"))
    check_order(order(tmp_path / "empty"))


def test_an_out_dir_that_pools_would_mistake_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="another"):
        check_order(order(tmp_path / "minilm", model="/models/minilm"))
    with pytest.raises(ConfigurationError, match="such as multilingual-e5-large-fast"):
        check_order(order(tmp_path / "fast", model="intfloat/multilingual-e5-large"))
    with pytest.raises(ConfigurationError, match="prefixes"):
        check_order(order(tmp_path / "e5-fast"))
    check_order(order(tmp_path / "multilingual-e5-large-fast", model="intfloat/multilingual-e5-large"))


def test_a_missing_library_is_told_with_what_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.models.optimize.find_spec", lambda name: None if name == "ir_measures" else name)

    with pytest.raises(ConfigurationError, match=r"ir-measures.*pip install 'headrace\[optimize\]'"):
        check_order(order(tmp_path / "out"))


@pytest.mark.parametrize(
    ("findings", "reason"),
    [
        (FOUND, ""),
        (replace(FOUND, ndcg_at_10_after=0.9), ""),
        (replace(FOUND, ndcg_at_10_after=0.85), "nDCG@10 changes by -0.0200"),
        (replace(FOUND, ndcg_at_10_after=math.nan), "nDCG@10"),
        (replace(FOUND, agreement=0.9), "agreement 0.9000"),
        (replace(FOUND, agreement=math.nan), "agreement"),
    ],
)
def test_a_model_that_ranks_worse_or_not_at_all_is_refused(findings: Findings, reason: str) -> None:
    assert refusal(findings).startswith(reason)
    assert bool(refusal(findings)) is bool(reason)


def test_the_card_quotes_the_findings_that_stand_beside_the_model(tmp_path: Path) -> None:
    assert method_of("offline") == method_of(str(tmp_path)) == ""
    write_findings(tmp_path, FOUND)
    quoted = "int8 static: agreement 0.9900, nDCG@10 -0.0050"
    assert method_of(str(tmp_path)) == method_of(f"{tmp_path}@2") == quoted
    for broken in ("{", "[]", '{"method": "int8"}', (tmp_path / FILE).read_text().replace("0.99", '"high"')):
        (tmp_path / FILE).write_text(broken)
        with pytest.raises(ConfigurationError, match="cannot be read"):
            method_of(str(tmp_path))


def test_guards_against_nan_go_and_nothing_else() -> None:
    model = onnx.parser.parse_model(GUARDED)
    drop_nan_guards(model.graph)
    onnx.checker.check_model(model)

    assert [node.op_type for node in model.graph.node] == ["MatMul", "MatMul", "Softmax", "Mul"]
    assert list(model.graph.node[-1].input) == ["s", "s"]


def test_only_products_with_weights_are_quantised() -> None:
    assert products_with_weights(onnx.parser.parse_model(GUARDED).graph) == ["product"]


def test_types_that_inference_may_lose_are_stated() -> None:
    graph = onnx.parser.parse_model(GUARDED).graph
    state_types(graph)
    state_types(graph)

    assert [(value.name, value.type.tensor_type.elem_type) for value in graph.value_info] == [("p", 1)], "x is an input"


def test_a_model_that_may_be_batched_goes_before_a_slightly_faster_one_that_may_not() -> None:
    row_by_row = replace(FOUND, batch_invariant=False, speedup=2.3)

    assert worth(FOUND) > worth(row_by_row)
    assert worth(row_by_row) > worth(replace(FOUND, speedup=1.2))
