"""What a pool sees of a worker process without asking it: since when a batch runs, and whether it has ever served."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Vitals:
    """A few numbers in memory that parent and child share. The child writes, the parent reads; each is one word."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._working_since_s = context.RawValue("d", 0.0)
        self._served = context.RawValue("b", 0)
        self._worked = context.RawValue("b", 0)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Mark the time that the model takes, which may hang."""
        self._working_since_s.value = time.monotonic()
        try:
            yield
        finally:
            self._working_since_s.value = 0.0

    def working_s(self) -> float:
        """How long the batch in hand runs already; 0 between batches. All processes have the same monotonic clock."""
        since_s = self._working_since_s.value
        return time.monotonic() - since_s if since_s else 0.0

    def forget_work(self) -> None:
        """The process is killed: what it was at does not count any more."""
        self._working_since_s.value = 0.0

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


def resident_mb(pid: int | None) -> int:
    """The memory that a process has in use, in MiB; 0 if that cannot be told."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES >> 20
    except OSError:
        return 0
