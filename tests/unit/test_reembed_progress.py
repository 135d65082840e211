"""What a run reports: counts over all starts, rates of this one, tokens by the pool's measure, and not too often."""

import io
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from console import progress
from console.progress import report_line
from console.reembed import summary
from producer.bulk.order import Order
from producer.bulk.pipeline import Outcome
from producer.bulk.progress import Meter, Progress
from producer.client import Producer
from producer.errors import RedisUnavailable
from tests.unit.fakes import ManualClock


class Pool:
    """A producer that knows what the pool has counted, or cannot ask."""

    def __init__(self, **counters: int) -> None:
        self.counters = counters
        self.away = False

    def queue_state(self, task: str) -> Any:
        if self.away:
            raise RedisUnavailable("away")
        return SimpleNamespace(counters=self.counters)


def meter_of(pool: Pool, clock: ManualClock, told: list[Progress], **before: int) -> Meter:
    return Meter(cast(Producer, pool), 100, told.append, clock=clock, **before)


def test_counts_go_on_and_rates_begin_anew(clock: ManualClock) -> None:
    told: list[Progress] = []
    meter = meter_of(Pool(tokens=50, text_bytes=100), clock, told, rows=40, rejected=2, cached_rows=10)
    for number in range(10):
        clock.advance(1.0)
        meter.count("four", cached=number % 2 == 0)
    meter.count_reject()
    meter.report(at_once=True)
    now = told[-1]
    assert (now.rows, now.rejected, now.cached_rows, now.total) == (50, 3, 15, 100)
    assert now.rows_per_s == pytest.approx(1.0)
    assert now.tokens_per_s == pytest.approx(5 * 4 * 0.5 / 10)
    assert now.eta_s == pytest.approx((100 - 53) / 1.1)


def test_it_reports_a_few_times_a_second_at_most(clock: ManualClock) -> None:
    told: list[Progress] = []
    meter = meter_of(Pool(), clock, told)
    for _ in range(1000):
        clock.advance(0.001)
        meter.count("text", cached=False)
    assert 4 <= len(told) <= 6


def test_a_redis_that_is_away_costs_the_estimate_only(clock: ManualClock) -> None:
    told: list[Progress] = []
    pool = Pool(tokens=50, text_bytes=100)
    pool.away = True
    meter_of(pool, clock, told).count("text", cached=False)
    assert told[-1].tokens_per_s is None


NOW = Progress(
    rows=1_199_200,
    total=2_000_000,
    cached_rows=299_800,
    rejected=1,
    elapsed_s=2.0,
    rows_per_s=600.0,
    tokens_per_s=15000.0,
    eta_s=1334.7,
)
RATES = "600 rows/s, about 15,000 tokens/s, 25% cached, 1 failed, 22 min left"


def test_a_report_as_a_line() -> None:
    assert report_line(NOW) == f"1,199,201 of 2,000,000 rows, {RATES}"


def test_a_terminal_of_80_columns_shows_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, color_system=None, width=80)
    monkeypatch.setattr(progress, "Console", lambda stderr: terminal)
    with progress.run_progress() as show:
        show(NOW)
    bar, below = [line for line in re.split(r"[\r\n]|\x1b\[[?0-9]*[A-Za-z]", screen.getvalue()) if line][-2:]
    assert bar.startswith("embedding ━━━━━━━━━━")
    assert bar.endswith(" 1,199,201 of 2,000,000 rows")
    assert below == RATES


def test_what_a_run_has_done_as_lines() -> None:
    end = Outcome(
        rows=5000,
        rejected=2,
        rejects_path="/r",
        checked="all",
        elapsed_s=240.0,
        resumed_rows=4000,
        model="m",
        template="{text}",
    )
    written, rejected = summary(Order(source="a", sink="b.jsonl"), end)
    assert (
        written == "5,000 rows written to b.jsonl (4,000 of them before) in 4 min (model m, text {text}); checked: all"
    )
    assert rejected == "2 rows rejected, with the reasons: /r"
