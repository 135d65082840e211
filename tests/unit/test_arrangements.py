"""Which arrangements of processes and threads are measured, which is best, and how memory is read."""

from pathlib import Path

import pytest

from workers.arrangements import Arrangement, Figure, arrangements, best
from workers.memory import available_bytes, proportional_bytes


@pytest.mark.parametrize(
    ("cpus", "pairs"),
    [
        (1, [(1, 1)]),
        (2, [(1, 1), (1, 2), (2, 1)]),
        (3, [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1)]),
        (4, [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1), (4, 1)]),
        (6, [(1, 6), (2, 3), (3, 2), (6, 1)]),
        (16, [(1, 16), (2, 8), (3, 5), (4, 4), (5, 3), (8, 2), (16, 1)]),
    ],
)
def test_what_fits_few_cpus_or_fills_many(cpus: int, pairs: list[tuple[int, int]]) -> None:
    assert [(one.processes, one.threads) for one in arrangements(cpus)] == pairs


def figure(processes: int, budget_tokens: int, rows_per_s: float) -> Figure:
    return Figure(
        arrangement=Arrangement(processes=processes, threads=1),
        budget_tokens=budget_tokens,
        rows_per_s=rows_per_s,
        short_row_ms=5.0,
        memory_bytes=processes * 10**8,
    )


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ([(1, 256, 30.0), (2, 256, 50.0)], 1),
        ([(1, 256, 49.0), (2, 256, 50.0)], 0),
        ([(2, 512, 50.0), (2, 256, 49.0)], 1),
        ([(2, 512, 50.0), (2, 256, 40.0)], 0),
        ([(2, 256, 49.0), (1, 1024, 50.0)], 1),
    ],
)
def test_the_best_has_the_most_rows_and_then_the_least_of_the_rest(
    figures: list[tuple[int, int, float]], expected: int
) -> None:
    all_figures = [figure(*one) for one in figures]

    assert best(all_figures) is all_figures[expected]


def test_what_is_left_of_the_memory_is_the_machines_or_less(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  100 kB\nMemAvailable:   50 kB\n")
    assert available_bytes(tmp_path / "meminfo", tmp_path) == 51200

    (tmp_path / "memory.max").write_text("max\n")
    assert available_bytes(tmp_path / "meminfo", tmp_path) == 51200

    (tmp_path / "memory.max").write_text("30000\n")
    (tmp_path / "memory.current").write_text("10000\n")
    assert available_bytes(tmp_path / "meminfo", tmp_path) == 20000
    assert available_bytes(tmp_path / "none", tmp_path / "none") == 0


def test_a_process_that_is_gone_takes_nothing() -> None:
    assert proportional_bytes(None) == 0
