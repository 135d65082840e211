"""Texts for the campaigns: the first word names the row, and lengths are mixed."""

import random

LONGEST_WORDS = 60


def mixed_texts(count: int, chance: random.Random, *, name: str = "row") -> list[str]:
    """Texts of 1 to 60 words, short ones as often as long ones."""
    lengths = [chance.randint(1, LONGEST_WORDS) for _ in range(count)]
    return [" ".join([f"{name}-{number}", *["word"] * (words - 1)]) for number, words in enumerate(lengths)]


def name_of(text: str) -> str:
    """The name of a text's row."""
    return text.split(maxsplit=1)[0]
