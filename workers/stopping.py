"""How processes are asked to stop: a flag that a signal handler may set at any moment, and a count of the requests."""

import signal
import time
from typing import Protocol

EXIT_CONFIGURATION = 78
"""Exit code (EX_CONFIG of sysexits.h) of a process that another start would not help."""

_SLICE_S = 0.1
_SAME_S = 0.3


class StopSignal(Protocol):
    """What the engine needs of the flag; `threading.Event` will do where no signal handler sets it."""

    def is_set(self) -> bool: ...

    def set(self) -> None: ...

    def wait(self, timeout: float) -> bool: ...


class StopFlag:
    """Like `threading.Event`, without its lock: a handler that interrupts `wait` in the same thread cannot deadlock."""

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def wait(self, timeout: float) -> bool:
        """Sleep until the flag is set, or for so many seconds; return whether it is set."""
        deadline = time.monotonic() + timeout
        while not self._set and (left_s := deadline - time.monotonic()) > 0:
            time.sleep(min(_SLICE_S, left_s))
        return self._set


class SignalCount:
    """Counts requests to stop. A SIGTERM right behind another is the same request, sent to a whole group of processes
    and passed on by a parent as well; a person's Ctrl-C always counts."""

    def __init__(self) -> None:
        self.count = 0
        self._counted_at_s = float("-inf")

    def note(self, number: int) -> None:
        """Take a signal's number; called by the handler."""
        now_s = time.monotonic()
        if number != signal.SIGTERM or now_s - self._counted_at_s >= _SAME_S:
            self.count += 1
            self._counted_at_s = now_s
