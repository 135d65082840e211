"""Memory of running processes and all their children: the sum of what each holds, shared pages counted once (PSS)."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from workers.memory import proportional_bytes

_EVERY_S = 0.05
_PAUSE_PER_LOOK = 20


class Peak:
    """The highest sum seen, in MiB."""

    def __init__(self) -> None:
        self.mib = 0.0

    def note(self, pids: Sequence[int]) -> None:
        self.mib = max(self.mib, pss_mib(pids))


@contextmanager
def watching(pids: Sequence[int]) -> Iterator[Peak]:
    """Sample the memory of these processes and their children until the block ends."""
    peak, done = Peak(), threading.Event()

    def sample() -> None:
        pause_s = _EVERY_S
        while not done.wait(pause_s):
            started = time.perf_counter()
            peak.note(pids)
            # The kernel walks every page: beside gigabytes, looking often would slow down what is looked at.
            pause_s = max(_EVERY_S, _PAUSE_PER_LOOK * (time.perf_counter() - started))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak.note(pids)


def pss_mib(pids: Sequence[int]) -> float:
    """Sum up the proportional set sizes of these processes and their children, in MiB (Linux: smaps_rollup)."""
    return sum(proportional_bytes(pid) for pid in _families(pids)) / 2**20


def _families(pids: Sequence[int]) -> set[int]:
    found: set[int] = set()
    left = list(pids)
    while left:
        pid = left.pop()
        if pid not in found:
            found.add(pid)
            for listing in Path(f"/proc/{pid}/task").glob("*/children"):
                with suppress(OSError):
                    left += map(int, listing.read_text().split())
    return found
