"""English texts of any length out of what Python itself installs, for measuring a model on real rows.

The source is the help on Python's language (`pydoc_data.topics`, about 40,000 words of prose); nothing is downloaded.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import cycle, islice

from producer.wire.keys import Kind
from producer.wire.messages import Row
from producer.wire.models import TaskName

QUERY = "how does the interpreter find an attribute"

_FEWEST_WORDS = 8
_MARKUP = re.compile(r"\*{4}|={4}|>>>|::=")


def sample_texts(lengths_words: Iterable[int]) -> list[str]:
    """One text for each length, in words; each goes on where the one before it ended, and so differs from it."""
    words = cycle(word for paragraph in _prose() for word in paragraph.split())
    return [" ".join(islice(words, length)) for length in lengths_words]


def sample_rows(task: TaskName, lengths_words: Iterable[int]) -> list[Row]:
    """Rows of a task with texts of these lengths; a pair has one short query in front of each text."""
    texts = sample_texts(lengths_words)
    if task == "embed":
        return [Row(kind=Kind.PASSAGE, text=text) for text in texts]
    return [Row(kind=Kind.PAIR, query=QUERY, text=text) for text in texts]


def _prose() -> Iterator[str]:
    """The paragraphs that are sentences: no headings, grammar or sessions of the interpreter."""
    from pydoc_data.topics import topics  # noqa: PLC0415 - 700 kB that only whoever measures needs

    for name in sorted(topics):
        for paragraph in topics[name].split("\n\n"):
            text = " ".join(paragraph.split())
            is_sentence = text[:1].isupper() and text.endswith(".") and not _MARKUP.search(text)
            if is_sentence and text.count(" ") >= _FEWEST_WORDS:
                yield text
