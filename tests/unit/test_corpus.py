"""The benchmarks' corpus: the same texts each time, no two alike, and as long as it says."""

import re
from collections.abc import Callable

import pytest

from benchmarks import corpus


@pytest.mark.parametrize("make", [corpus.texts, corpus.queries, corpus.documents])
def test_texts_are_the_same_each_time_and_distinct(make: Callable[[int, int], list[str]]) -> None:
    found = make(300, 7)
    assert found == make(300, 7)
    assert found[:100] == make(100, 7)
    assert len(set(found)) == 300
    assert not set(found) <= set(make(300, 8))


def test_lengths_are_mixed() -> None:
    words = sorted(len(text.split()) for text in corpus.texts(2_000))
    assert words[0] >= corpus.LEAST_TOKENS
    assert words[-1] <= corpus.MOST_TOKENS
    assert words[0] < 10 < words[1_000] < 100 < words[-20] < words[-1]


def test_queries_are_short() -> None:
    assert all(5 <= len(text.split()) <= 15 for text in corpus.queries(500))


def test_it_is_prose() -> None:
    letters = re.findall(r"[A-Za-z ]", " ".join(corpus.texts(200)))
    assert len(letters) > 0.9 * sum(map(len, corpus.texts(200)))
