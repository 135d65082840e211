"""English of mixed length from what Python itself installs: help topics, docstrings, the license. No downloads.

The same Python gives the same texts. They have 5 to 2,000 tokens, half of them fewer than about 60, one in ten more
than 256: long-tailed, as titles, comments, abstracts and articles in one collection are. No two of one call are equal.
"""

import ast
import re
import sysconfig
from collections.abc import Callable, Iterator
from functools import lru_cache
from math import exp
from pathlib import Path
from random import Random

__all__ = ["LEAST_TOKENS", "MOST_TOKENS", "documents", "queries", "texts"]

LEAST_TOKENS = 5
MOST_TOKENS = 2_000

_MEDIAN_TOKENS = 68.0
_SPREAD = 1.05
_DOCUMENT_MEDIAN_TOKENS = 90.0
_DOCUMENT_SPREAD = 0.5
_QUERY_TOKENS = (5, 15)

_MODULES = """
    argparse codecs configparser datetime difflib doctest inspect ipaddress logging/__init__ optparse pdb random
    shutil smtplib socket socketserver ssl statistics subprocess textwrap threading traceback turtle typing
"""
"""Where the standard library explains itself at length."""

_PIECE = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_")
_PROSE = re.compile(r"[A-Za-z]{2,}")
_LEAST_PROSE = 0.75
_LEAST_WORDS = 6
_LETTERS_OF_A_TOKEN = 6


def texts(count: int, seed: int = 0) -> list[str]:
    """Return `count` distinct texts of 5 to 2,000 tokens (of a BERT vocabulary; special tokens are not counted)."""
    return _distinct(count, f"texts {seed}", lambda random: _tokens_drawn(random, _MEDIAN_TOKENS, _SPREAD))


def queries(count: int, seed: int = 0) -> list[str]:
    """Return `count` distinct short texts of 5 to 15 tokens."""
    return _distinct(count, f"queries {seed}", lambda random: random.randint(*_QUERY_TOKENS))


def documents(count: int, seed: int = 0) -> list[str]:
    """Return `count` distinct passages as a reranker gets them: 20 to 400 tokens, half of them fewer than about 80."""

    def length(random: Random) -> int:
        return min(400, max(25, _tokens_drawn(random, _DOCUMENT_MEDIAN_TOKENS, _DOCUMENT_SPREAD)))

    return _distinct(count, f"documents {seed}", length)


def _distinct(count: int, seed: str, length: Callable[[Random], int]) -> list[str]:
    random = Random(seed)  # noqa: S311 - the same texts each time is what is wanted
    found: dict[str, None] = {}
    while len(found) < count:
        if text := _cut(random, length(random)):
            found[text] = None
    return list(found)


def _tokens_drawn(random: Random, median: float, spread: float) -> int:
    return round(min(float(MOST_TOKENS), max(float(LEAST_TOKENS), median * exp(random.gauss(0.0, spread)))))


def _cut(random: Random, tokens: int) -> str:
    """Take up to so many tokens of running text from the beginning of some paragraph; "" if five words are too many."""
    paragraphs = _paragraphs()
    chosen: list[str] = []
    number = random.randrange(len(paragraphs))
    while True:
        for word, cost in paragraphs[number % len(paragraphs)]:
            if cost > tokens:
                return " ".join(chosen) if len(chosen) >= LEAST_TOKENS else ""
            chosen.append(word)
            tokens -= cost
        number += 1


@lru_cache(maxsize=1)
def _paragraphs() -> list[list[tuple[str, int]]]:
    """All the paragraphs of prose, as words with their tokens, each paragraph once."""
    found = dict.fromkeys(" ".join(part.split()) for part in re.split(r"\n\s*\n", "\n\n".join(_sources())))
    return [[(word, _tokens(word)) for word in text.split()] for text in found if _is_prose(text)]


def _is_prose(text: str) -> bool:
    """Whether it is sentences: not a session of the interpreter, a table, a grammar or an underlined heading."""
    words = text.split()
    prose = sum(bool(_PROSE.match(word)) for word in words)
    return len(words) >= _LEAST_WORDS and prose >= _LEAST_PROSE * len(words) and ">>>" not in text and "===" not in text


def _tokens(word: str) -> int:
    """Estimate the tokens of a word, rather too many: rare and long words fall into several pieces."""
    return sum(1 + (len(piece) - 1) // _LETTERS_OF_A_TOKEN for piece in _PIECE.findall(word))


def _sources() -> Iterator[str]:
    """Yield what the running Python has to say: help topics, docstrings, and the license where it is installed."""
    # Here, because it is half a megabyte that only the benchmarks want.
    from pydoc_data.topics import topics  # noqa: PLC0415

    library = Path(sysconfig.get_path("stdlib"))
    for topic in sorted(topics):
        yield topics[topic]
    for module in _MODULES.split():
        yield from _docstrings((library / f"{module}.py").read_bytes())
    license_text = library / "LICENSE.txt"
    if license_text.exists():
        yield license_text.read_text("utf-8")


def _docstrings(source: bytes) -> Iterator[str]:
    """Yield the docstrings of a module without running it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
