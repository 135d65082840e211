"""Finds out at the first start how large a model's batches should be on this machine, and how fast it then is.

Texts of three lengths run in batches of the smallest budget, then of twice that, as long as it is faster: a second or
two for a small model, and about five at most. Speeds differ little on CPUs, but a large batch makes others wait.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import accumulate
from pathlib import Path
from statistics import mean, median

from producer.wire.messages import ModelCard, Row
from workers.budget import BatchBudget, Speed, batches, choose, gains
from workers.kept_speeds import KeptSpeeds, Key
from workers.sample_texts import sample_rows
from workers.settings import WorkerSettings
from workers.tasks import Task

logger = logging.getLogger("headrace.worker")

CANDIDATES_TOKENS = (256, 512, 1024, 2048)
ROW_BY_ROW_TOKENS = 1
"""The budget of a model whose rows depend on their batch-mates: no two rows fit one token."""

_LENGTHS_WORDS = (6, 40, 125)
"""Short, middle and long texts: about 10, 60 and 200 tokens."""

_ROWS = 64
"""Rows of each length: as many as the engine looks ahead."""

_ROUNDS = 3
_LIMIT_S = 5.0

Clock = Callable[[], float]


def calibrated(task: Task, card: ModelCard, settings: WorkerSettings) -> BatchBudget:
    """The budget for this model with the settings' threads: as asked for, or the best; measured once and then kept."""
    candidates = CANDIDATES_TOKENS if card.batch_invariant else (ROW_BY_ROW_TOKENS,)
    kept = KeptSpeeds(settings.cache_path / "calibration", _key(card, settings.threads, candidates))
    speeds = kept.get(lambda: measure_speeds(task, candidates))
    budget = choose(speeds, settings.batch_tokens if card.batch_invariant else ROW_BY_ROW_TOKENS)
    logger.info("batches of up to %d padded tokens, about %.0f tokens/s", budget.tokens, budget.tokens_per_s)
    return budget


def measure_speeds(task: Task, candidates: Sequence[int], clock: Clock = time.perf_counter) -> list[Speed]:
    """Measure the two smallest budgets in turns, then larger ones until one gains nothing or would take too long.

    A budget at which the model fails ends it, too; what was measured before counts.
    """
    deadline = clock() + _LIMIT_S
    speeds: list[Speed] = []
    try:
        samples = [_Sample.of(task, words) for words in _LENGTHS_WORDS]
        tokens_per_s = _rough_speed(task, samples[-1], clock)
        for step in (candidates[:2], *([tokens] for tokens in candidates[2:])):
            affordable_tokens = (deadline - clock()) * tokens_per_s / len(samples)
            budgets = [
                tokens for tokens, total in zip(step, accumulate(step), strict=True) if total <= affordable_tokens
            ]
            if not (budgets or speeds):  # so slow that one long row must do
                budgets, samples = [step[0]], samples[-1:]
            if not (budgets and gains(speeds)):
                break
            speeds += _in_turns(task, samples, budgets, deadline, clock)
            tokens_per_s = speeds[-1].tokens_per_s
    except Exception as error:  # noqa: BLE001 - a model may raise anything, and may serve smaller batches well
        logger.warning("the calibration ended early: %s", type(error).__name__)
    return speeds


@dataclass(frozen=True, kw_only=True)
class _Batch:
    rows: list[Row]
    padded_tokens: int

    def token_s(self, task: Task, clock: Clock) -> float:
        """Run it, and tell the time for each of its padded tokens."""
        started = clock()
        task.run(self.rows)
        return max(clock() - started, 1e-9) / self.padded_tokens


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """Rows of about one length, and how many tokens each is."""

    rows: list[Row]
    tokens: list[int]

    @classmethod
    def of(cls, task: Task, words: int) -> "_Sample":
        rows = sample_rows(task.name, [words] * _ROWS)
        return cls(rows=rows, tokens=[measure.tokens for measure in task.measure(rows)])

    def batch(self, budget_tokens: int) -> _Batch:
        """The first batch that these rows make within a budget."""
        indices = next(batches(self.tokens, budget_tokens))
        longest_tokens = max(self.tokens[index] for index in indices)
        return _Batch(rows=[self.rows[index] for index in indices], padded_tokens=longest_tokens * len(indices))


def _rough_speed(task: Task, sample: _Sample, clock: Clock) -> float:
    """The speed of one row; the first run of all, which is slower, does not count."""
    batch = sample.batch(ROW_BY_ROW_TOKENS)
    task.run(batch.rows)
    return 1 / batch.token_s(task, clock)


def _in_turns(
    task: Task, samples: Sequence[_Sample], budgets: Sequence[int], deadline: float, clock: Clock
) -> list[Speed]:
    """Measure budgets side by side in up to three rounds, so that a noisy machine disturbs all alike.

    Medians count; each length has the same share of a budget's tokens, so that times are averaged and not speeds.
    """
    plans = {tokens: [sample.batch(tokens) for sample in samples] for tokens in budgets}
    token_s: dict[int, list[list[float]]] = {tokens: [[] for _ in samples] for tokens in budgets}
    for _ in range(_ROUNDS):
        round_started = clock()
        for tokens, plan in plans.items():
            for batch, times_s in zip(plan, token_s[tokens], strict=True):
                times_s.append(batch.token_s(task, clock))
        if 2 * clock() - round_started > deadline:
            break
    return [
        Speed(budget_tokens=tokens, tokens_per_s=1 / mean(median(times_s) for times_s in token_s[tokens]))
        for tokens in budgets
    ]


def _key(card: ModelCard, threads: int, candidates: Sequence[int]) -> Key:
    return {
        "task": card.task,
        "weights_sha256": card.weights_sha256,
        "threads": threads,
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "onnxruntime": _onnxruntime_version(),
        "candidates": list(candidates),
    }


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """What the kernel calls the processor; its machine type where the kernel has no name for it (ARM)."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, os.uname().machine)


def _onnxruntime_version() -> str:
    try:
        return metadata.version("onnxruntime")
    except metadata.PackageNotFoundError:  # a build of it under another name
        return "unknown"
