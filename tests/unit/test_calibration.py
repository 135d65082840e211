"""The calibration with a model whose speed is arithmetic: which budgets it tries, how long it takes, what it keeps."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from producer.wire.keys import Kind
from producer.wire.messages import EmbeddingReply, ModelCard, Row
from workers import calibration
from workers.budget import BatchBudget, Speed
from workers.calibration import CANDIDATES_TOKENS, calibrated, cpu_name, measure_speeds
from workers.sample_texts import sample_rows, sample_texts
from workers.settings import WorkerSettings
from workers.tasks import Measure


class TimedTask:
    """A task in which a word is a token, and a batch takes as long as a function of its padded tokens says."""

    name = "embed"

    def __init__(self, batch_s: Callable[[int], float]) -> None:
        self._batch_s = batch_s
        self.now_s = 0.0
        self.batches: list[int] = []

    def clock(self) -> float:
        return self.now_s

    def accepts(self, kind: Kind) -> bool:
        return True

    def measure(self, rows: Sequence[Row]) -> list[Measure]:
        return [Measure(tokens=len(row.text.split()), truncated=False) for row in rows]

    def run(self, rows: Sequence[Row]) -> list[EmbeddingReply]:
        padded_tokens = len(rows) * max(measure.tokens for measure in self.measure(rows))
        self.batches.append(padded_tokens)
        self.now_s += self._batch_s(padded_tokens)
        return [EmbeddingReply(vector=b"") for _ in rows]


def tried(task: TimedTask, candidates: Sequence[int] = CANDIDATES_TOKENS) -> dict[int, float]:
    found = measure_speeds(task, candidates, task.clock)  # type: ignore[arg-type] # its name is a plain str
    return {speed.budget_tokens: speed.tokens_per_s for speed in found}


def test_a_model_that_gains_nothing_is_asked_for_the_two_smallest_budgets_only() -> None:
    task = TimedTask(lambda tokens: tokens / 4000)

    assert tried(task) == pytest.approx({256: 4000.0, 512: 4000.0})
    assert task.now_s < 2
    assert max(task.batches) <= 512


def test_a_model_that_gains_is_followed_to_the_largest() -> None:
    task = TimedTask(lambda tokens: 0.1 + tokens / 100_000)
    found = tried(task)

    assert list(found) == list(CANDIDATES_TOKENS)
    assert sorted(found.values()) == list(found.values())


@pytest.mark.parametrize("tokens_per_s", [5000, 1000, 500, 200, 100, 50])
def test_the_time_is_bounded_however_slow_the_model_is(tokens_per_s: int) -> None:
    task = TimedTask(lambda tokens: tokens / tokens_per_s)
    found = tried(task)

    assert found[256] == pytest.approx(tokens_per_s)
    assert task.now_s < 5 + 4 * 256 / tokens_per_s


def test_one_slow_run_does_not_count() -> None:
    slow = iter([0.0, 0.0, 0.9])
    task = TimedTask(lambda tokens: tokens / 4000 + next(slow, 0.0))

    assert tried(task) == pytest.approx({256: 4000.0, 512: 4000.0})


def test_a_model_that_fails_with_larger_batches_has_a_budget(caplog: pytest.LogCaptureFixture) -> None:
    def batch_s(tokens: int) -> float:
        if tokens > 600:
            raise MemoryError
        return 0.1 + tokens / 100_000

    assert list(tried(TimedTask(batch_s))) == [256, 512]
    assert "ended early: MemoryError" in caplog.text


def card(*, invariant: bool = True, weights: str = "w") -> ModelCard:
    return ModelCard(
        task="embed",
        model="m",
        dimension=1,
        max_tokens=0,
        weights_sha256=weights,
        query_prefix="",
        passage_prefix="",
        batch_invariant=invariant,
        method="",
    )


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[int]]:
    """Measuring is replaced by plain numbers; the candidates of each time."""
    asked: list[Sequence[int]] = []

    def measure(_task: object, candidates: Sequence[int]) -> list[Speed]:
        asked.append(candidates)
        return [Speed(budget_tokens=tokens, tokens_per_s=1000.0 + tokens) for tokens in candidates]

    monkeypatch.setattr(calibration, "measure_speeds", measure)
    return asked


TASK = TimedTask(lambda _tokens: 0.0)


def ask(folder: Path, *, batch_tokens: int = 0, threads: int = 1, **about: object) -> BatchBudget:
    settings = WorkerSettings(cache_dir=str(folder), threads=threads, batch_tokens=batch_tokens)
    return calibrated(TASK, card(**about), settings)  # type: ignore[arg-type]


def test_the_first_process_measures_and_the_next_ones_read(measured: list[Sequence[int]], tmp_path: Path) -> None:
    first, second = ask(tmp_path), ask(tmp_path)

    assert first == second == BatchBudget(tokens=2048, tokens_per_s=3048.0)
    assert measured == [CANDIDATES_TOKENS]


def test_other_weights_or_threads_are_measured_anew(measured: list[Sequence[int]], tmp_path: Path) -> None:
    for about in ({}, {"weights": "other"}, {"threads": 2}, {}):
        ask(tmp_path, **about)

    assert len(measured) == 3


def test_a_number_wins_and_the_speed_is_known_all_the_same(measured: list[Sequence[int]], tmp_path: Path) -> None:
    assert ask(tmp_path, batch_tokens=300) == BatchBudget(tokens=300, tokens_per_s=1256.0)


@pytest.mark.parametrize("batch_tokens", [0, 512])
def test_a_model_that_is_not_invariant_runs_row_by_row(
    measured: list[Sequence[int]], tmp_path: Path, batch_tokens: int
) -> None:
    assert ask(tmp_path, invariant=False, batch_tokens=batch_tokens) == BatchBudget(tokens=1, tokens_per_s=1001.0)
    assert measured == [(1,)]


def test_a_model_that_cannot_be_measured_has_a_budget(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(calibration, "measure_speeds", lambda *_: [])

    assert ask(tmp_path) == BatchBudget(tokens=1024, tokens_per_s=0.0)
    assert ask(tmp_path, invariant=False).tokens == 1
    assert not list(tmp_path.rglob("*.json")), "a failure is not kept"


def test_the_name_of_the_processor(tmp_path: Path) -> None:
    (tmp_path / "x86").write_text("processor\t: 0\nmodel name\t: A Chip: 9000\nmodel name\t: A Chip: 9000\n")
    (tmp_path / "arm").write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")

    assert cpu_name(tmp_path / "x86") == "A Chip: 9000"
    assert cpu_name(tmp_path / "arm") == cpu_name(tmp_path / "missing") != ""


def test_the_samples_are_english_of_the_lengths_asked_for() -> None:
    texts = sample_texts([3, 1, 200, 40])

    assert [len(text.split()) for text in texts] == [3, 1, 200, 40]
    assert len(set(texts)) == 4
    assert texts == sample_texts([3, 1, 200, 40])
    assert " the " in texts[2]
    assert len(sample_texts([100_000])[0].split()) == 100_000, "it begins anew where it ends"


def test_the_sample_rows_are_the_tasks() -> None:
    (text,), (pair,) = sample_rows("embed", [5]), sample_rows("rerank", [5])

    assert (text.kind, text.query) == (Kind.PASSAGE, None)
    assert pair.kind is Kind.PAIR
    assert pair.query
    assert pair.text == text.text
