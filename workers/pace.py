"""How fast the model runs, in padded tokens a second: told by calibration, corrected by every batch. Pure."""

_SMOOTHING = 0.2
_LEAST_TOKENS = 64
"""Below, the fixed cost of a batch hides what its tokens cost; and a smaller batch would hardly be shorter."""


class Pace:
    """The speed of one model on the cores it has at the moment."""

    def __init__(self, tokens_per_s: float = 0.0) -> None:
        self.tokens_per_s = tokens_per_s
        """0.0 while nothing is known."""

    def note(self, tokens: int, seconds: float) -> None:
        """Learn from a batch of so many padded tokens."""
        if tokens < _LEAST_TOKENS or seconds <= 0:
            return
        measured = tokens / seconds
        self.tokens_per_s += (measured - self.tokens_per_s) * (_SMOOTHING if self.tokens_per_s else 1.0)

    def seconds(self, tokens: int) -> float:
        """How long a batch of so many padded tokens takes, about; 0.0 while nothing is known."""
        return tokens / self.tokens_per_s if self.tokens_per_s else 0.0

    def budget_tokens(self, seconds: float, most: int) -> int:
        """How many padded tokens fit so much time, up to `most`."""
        if not self.tokens_per_s:
            return most
        return min(most, max(_LEAST_TOKENS, int(self.tokens_per_s * seconds)))
