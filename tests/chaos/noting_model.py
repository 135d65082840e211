"""The fake model of the campaigns' pools, set by CHAOS_ variables: it takes time, fails, holds rows and notes its work.

CHAOS_TASK: embed or rerank. CHAOS_BATCH_MS, CHAOS_ROW_MS: what a batch and a row cost. CHAOS_JOURNAL: a folder.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from producer.wire.models import TaskName
from tests.chaos.journal import Journal
from tests.integration.harness.fake_model import FakeModel, Input, describe
from workers.budget import BatchBudget
from workers.process import LoadedModel
from workers.settings import WorkerSettings

HOLD = "hold"
"""A text that begins so keeps its worker busy until the journal releases its row."""

FAIL = "fail"
"""A text that begins so makes the model raise."""

_SLOW = BatchBudget(tokens=1024, tokens_per_s=1000.0)
"""A speed at which the engine reads ahead beside the model; its few words a row would not tell it any."""

_LONGEST_HOLD_S = 120.0
_POLL_S = 0.005


def task_of_pool() -> TaskName:
    """The task that the environment names."""
    return cast(TaskName, os.environ.get("CHAOS_TASK", "embed"))


def load(settings: WorkerSettings) -> LoadedModel:
    """The `load` of such a pool."""
    task = task_of_pool()
    folder = os.environ.get("CHAOS_JOURNAL")
    journal = Journal(Path(folder)) if folder else None
    batch_s, row_s = (float(os.environ.get(name, "0")) / 1000 for name in ("CHAOS_BATCH_MS", "CHAOS_ROW_MS"))

    def on_batch(batch: Sequence[Input]) -> None:
        texts = [row if isinstance(row, str) else row[1] for row in batch]
        if journal:
            journal.note(texts)
            for text in texts:
                _hold(journal, text)
        time.sleep(batch_s + row_s * len(texts))
        if any(text.startswith(FAIL) for text in texts):
            raise ValueError("a row that fails")
        model.batches.clear()  # a soak must not grow by what the fake model remembers

    model = FakeModel(on_batch)
    return replace(describe(task, model, settings.model(task)), budget=_SLOW)


def _hold(journal: Journal, text: str) -> None:
    deadline = time.monotonic() + _LONGEST_HOLD_S
    while text.startswith(HOLD) and not journal.is_released(text) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
