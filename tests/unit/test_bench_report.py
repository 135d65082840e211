"""What a benchmark's finding says, how two sides are measured in turns, and how the report tells it."""

import ast
import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import benchmarks
from benchmarks.finding import Finding, in_turns, percentile
from benchmarks.plot import bars, margin
from benchmarks.report import Result, show, write
from benchmarks.runner import Outcome, names

BENCHMARKS = Path(benchmarks.__file__).parent


def a_finding(**values: Any) -> Finding:
    return Finding(**{"target": "1", "what": "rows [a]", "against": "others", "measured": 2.0, "bound": 1.5, **values})


def a_result(*findings: Finding, error: str = "") -> Result:
    outcome = Outcome(name="speed", seconds=1.0, findings=findings, error=error)
    return Result(machine={"cores": 2}, scale=1.0, outcomes=(outcome,))


def shown(result: Result) -> str:
    text = io.StringIO()
    show(result, Console(file=text, width=160))
    return text.getvalue()


@pytest.mark.parametrize(
    ("measured", "bound", "at_least", "kept"),
    [
        (1.5, 1.5, True, True),
        (1.4, 1.5, True, False),
        (1.5, 1.5, False, True),
        (1.6, 1.5, False, False),
        (9.0, None, True, None),
    ],
)
def test_a_bound_is_the_least_or_the_most(
    measured: float, bound: float | None, at_least: bool, kept: bool | None
) -> None:
    assert a_finding(measured=measured, bound=bound, at_least=at_least).kept is kept


def test_two_sides_take_turns_and_the_median_of_the_ratios_counts() -> None:
    order: list[str] = []
    mine, others = iter([10.0, 1.0, 30.0]), iter([5.0, 1.0, 10.0])

    def ours() -> float:
        order.append("ours")
        return next(mine)

    def theirs() -> float:
        order.append("theirs")
        return next(others)

    pair = in_turns(ours, theirs, rounds=3)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert (pair.ours, pair.theirs, pair.ratio) == (10.0, 5.0, 2.0)


@pytest.mark.parametrize(("percent", "value"), [(0, 1.0), (50, 50.0), (99, 99.0), (100, 100.0)])
def test_a_percentile_is_the_nearest_rank(percent: float, value: float) -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], percent) == value


@pytest.mark.parametrize(("percent", "value"), [(0, 3.0), (50, 3.0), (99, 7.0)])
def test_a_percentile_of_few_values_is_one_of_them(percent: float, value: float) -> None:
    assert percentile([7.0, 3.0], percent) == value


def test_the_margin_is_above_one_where_the_bound_is_kept() -> None:
    assert margin(a_finding(measured=3.0, bound=1.5)) == 2.0
    assert margin(a_finding(measured=3.0, bound=1.5, at_least=False)) == 0.5
    assert margin(a_finding(bound=None)) is None
    assert margin(a_finding(measured=0.0)) == 0.0


@pytest.mark.parametrize(
    ("measured", "bound", "times"), [(0.0, 0.0, math.inf), (-0.004, 0.01, math.inf), (2.0, 0.0, 0.0), (0.0, -1.0, 0.0)]
)
def test_figures_that_have_no_ratio_to_their_bound_are_drawn_all_the_same(
    measured: float, bound: float, times: float, tmp_path: Path
) -> None:
    found = a_finding(measured=measured, bound=bound, at_least=False)
    assert margin(found) == times
    assert f"{times:.2f}  rows [a]" in shown(a_result(found))
    write(a_result(found), tmp_path)
    assert (tmp_path / "bench.png").exists()


def test_the_table_tells_what_is_kept_missed_and_failed() -> None:
    text = shown(
        a_result(
            a_finding(target="10", what="slow", measured=1.0, note="the disk"),
            a_finding(target="2", what="fast"),
            a_finding(target="", what="plain", bound=None, unit="MiB"),
            error="ValueError: [x]",
        )
    )
    assert text.index("fast") < text.index("slow") < text.index("plain")
    assert "missed 10: slow: the disk" in text
    assert "failed speed: ValueError: [x]" in text
    assert "cores 2" in text


def test_bars_are_on_the_side_of_the_verdict() -> None:
    _, kept, missed, far = bars([a_finding(), a_finding(measured=1.0), a_finding(measured=1e9)])
    assert "#" in kept.split("|")[1]
    assert "#" not in kept.split("|")[0]
    assert "#" in missed.split("|")[0]
    assert len(far) < 120


def test_no_findings_make_no_plot() -> None:
    assert list(bars([])) == []
    assert "failed speed: gone" in shown(a_result(error="gone"))


def test_everything_is_written_down(tmp_path: Path) -> None:
    write(a_result(a_finding(), a_finding(bound=None), error="late"), tmp_path / "new")
    written = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert [one["kept"] for one in written["findings"]] == [True, None]
    assert written["failed"] == {"speed": "late"}
    assert written["machine"] == {"cores": 2}
    assert "rows [a]" in (tmp_path / "new" / "bench.txt").read_text()


def test_benchmarks_are_found_by_what_they_have() -> None:
    assert {"bulk", "http", "lanes", "rerank"} <= set(names())
    assert not {"corpus", "finding", "runner", "site", "__main__"} & set(names())


def _findings_made(module: str) -> list[ast.Call]:
    tree = ast.parse((BENCHMARKS / f"{module}.py").read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "Finding"]


@pytest.mark.parametrize("name", names())
def test_whatever_has_a_bound_says_what_limits_it(name: str) -> None:
    made = [{str(given.arg): ast.unparse(given.value) for given in call.keywords} for call in _findings_made(name)]
    assert made
    assert not [given["what"] for given in made if given["bound"] != "None" and not given.get("note", "''").strip("'")]
