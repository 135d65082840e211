"""How far a run has come, for progress bars, lines and a job's meta."""

from dataclasses import dataclass


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
