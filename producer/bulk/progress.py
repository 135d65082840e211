"""How far a run has come: counts, rates and the time left, for progress bars, lines and a job's meta."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from producer.client import Producer
from producer.errors import RedisUnavailable

_REPORT_EVERY_S = 0.2
_ASK_EVERY_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Counts over all starts of a run, but rates are this start's. `total` is None where nobody knows it.

    `tokens_per_s` is an estimate: bytes of the texts computed, at the pool's own bytes per token; None until the pool
    has counted any. `cached_rows` did not travel, since their vector was there.
    """

    rows: int
    total: int | None
    cached_rows: int
    rejected: int
    elapsed_s: float
    rows_per_s: float
    tokens_per_s: float | None
    eta_s: float | None
    """Seconds left, at the rate of this start."""


class Meter:
    """Counts what one start of a run does, and reports it a few times a second."""

    def __init__(
        self,
        producer: Producer,
        total: int | None,
        on_progress: Callable[[Progress], None],
        *,
        rows: int = 0,
        rejected: int = 0,
        cached_rows: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._producer, self._total, self._on_progress, self._clock = producer, total, on_progress, clock
        self._rows_before, self._rejected_before, self._cached_before = rows, rejected, cached_rows
        self.rows = self.rejected = self.cached_rows = 0
        self._computed_bytes = 0
        self._tokens_per_byte: float | None = None
        self._started = clock()
        self._reported = self._asked = float("-inf")

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._started

    def count(self, text: str, *, cached: bool) -> None:
        """Note a row that has its vector."""
        self.rows += 1
        self.cached_rows += cached
        if not cached:
            self._computed_bytes += len(text.encode())
        self.report()

    def count_reject(self) -> None:
        """Note a row that was set aside."""
        self.rejected += 1
        self.report()

    def report(self, *, at_once: bool = False) -> None:
        """Tell how far it is, unless that was told a moment ago."""
        if not at_once and self._clock() - self._reported < _REPORT_EVERY_S:
            return
        self._reported = self._clock()
        self._on_progress(self._progress())

    def _progress(self) -> Progress:
        elapsed_s = max(self.elapsed_s, 1e-9)
        rows, rejected = self._rows_before + self.rows, self._rejected_before + self.rejected
        rate = (self.rows + self.rejected) / elapsed_s
        left = None if self._total is None else max(0, self._total - rows - rejected)
        per_byte = self._ask()
        return Progress(
            rows=rows,
            total=self._total,
            cached_rows=self._cached_before + self.cached_rows,
            rejected=rejected,
            elapsed_s=elapsed_s,
            rows_per_s=self.rows / elapsed_s,
            tokens_per_s=None if per_byte is None else self._computed_bytes * per_byte / elapsed_s,
            eta_s=left / rate if left is not None and rate else None,
        )

    def _ask(self) -> float | None:
        """Tokens per byte of text, as the pool has counted them lately."""
        if self._clock() - self._asked >= _ASK_EVERY_S:
            self._asked = self._clock()
            with suppress(RedisUnavailable):
                self._tokens_per_byte = tokens_per_byte(self._producer.queue_state("embed").counters)
        return self._tokens_per_byte


def tokens_per_byte(counters: Mapping[str, int]) -> float | None:
    """How many tokens an embed pool has made of a byte of text so far; None before its first row."""
    tokens, size = counters.get("tokens", 0), counters.get("text_bytes", 0)
    return tokens / size if tokens and size else None
