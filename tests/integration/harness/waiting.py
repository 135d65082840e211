"""Waits for a condition with a deadline; no test sleeps a guess."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


def wait_until(
    condition: Callable[[], Value | None], timeout_s: float = 30.0, *, what: str = "the condition", poll_s: float = 0.01
) -> Value:
    """Return the first true value of the condition; fail the test when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout_s:g} s"
        time.sleep(poll_s)
    return value
