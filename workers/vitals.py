"""What a pool sees of a worker process without asking it: since when a batch runs, and whether it has ever served."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Vitals:
    """A few numbers in memory that parent and child share. The child writes, the parent reads; each is one word."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._model_since_s = context.RawValue("d", 0.0)
        self._tokenizer_since_s = context.RawValue("d", 0.0)
        self._served = context.RawValue("b", 0)
        self._worked = context.RawValue("b", 0)

    def working(self) -> AbstractContextManager[None]:
        """Mark the time that the model takes, which may hang."""
        return _marked(self._model_since_s)

    def tokenizing(self) -> AbstractContextManager[None]:
        """Mark the time that the tokenizer takes, which may hang as well, beside the model."""
        return _marked(self._tokenizer_since_s)

    def working_s(self) -> float:
        """How long the work in hand runs already; 0 between batches. All processes have the same monotonic clock."""
        # Each cell is read once: the work may end between two looks at it.
        since_s = [value for value in (self._model_since_s.value, self._tokenizer_since_s.value) if value]
        return time.monotonic() - min(since_s) if since_s else 0.0

    def forget_work(self) -> None:
        """The process is killed: what it was at does not count any more."""
        self._model_since_s.value = self._tokenizer_since_s.value = 0.0

    def note_served(self) -> None:
        """The model is loaded and the engine begins."""
        self._served.value = 1

    def note_worked(self) -> None:
        """A batch is done."""
        self._worked.value = 1

    @property
    def worked(self) -> bool:
        """Whether the process has done anything."""
        return bool(self._worked.value)

    @property
    def served(self) -> bool:
        """Whether the process has come that far."""
        return bool(self._served.value)


@contextmanager
def _marked(since_s: Any) -> Iterator[None]:
    since_s.value = time.monotonic()
    try:
        yield
    finally:
        since_s.value = 0.0


def resident_mb(pid: int | None) -> int:
    """The memory that a process has in use, in MiB; 0 if that cannot be told."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES >> 20
    except OSError:
        return 0
