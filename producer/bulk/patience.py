"""Tries a call again while the vector store cannot be reached, for so long and no longer."""

import time
from collections.abc import Callable
from typing import TypeVar

from producer.errors import StoreUnavailable

Result = TypeVar("Result")

PATIENCE_S = 60.0
"""Longer than a server needs to start again."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 5.0


class Patience:
    """For calls that may run twice without harm: reads, and writes of points that have their own ids."""

    def __init__(
        self,
        limit_s: float = PATIENCE_S,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._sleep = sleep

    def __call__(self, call: Callable[[], Result]) -> Result:
        """Call until it succeeds; what the store refuses is not tried again.

        Raises:
            StoreUnavailable: of the last try.
        """
        wait_s = _FIRST_WAIT_S
        deadline = self._clock() + self._limit_s
        while True:
            try:
                return call()
            except StoreUnavailable as error:
                if error.code != StoreUnavailable.code or self._clock() + wait_s > deadline:
                    raise
            self._sleep(wait_s)
            wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
