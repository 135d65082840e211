"""An unending bulk flood from a process of its own: numbered copies of the corpus through `iter_embed`."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from multiprocessing.sharedctypes import Synchronized
from typing import Any

from benchmarks.corpus import texts
from benchmarks.site import Site
from producer import Producer

_TEXTS = 64
"""Every so many rows the lengths repeat, so that any stretch of the flood is as hard as any other."""


@contextmanager
def flood(place: Site) -> Iterator[None]:
    """Flood the bulk lane of the embed pool until the block ends; begins when the first vectors are back."""
    context = multiprocessing.get_context("spawn")
    done: Any = context.Value("Q", 0)
    process = context.Process(target=_pour, args=(place.url, place.models, done), daemon=True)
    process.start()
    try:
        while done.value < _TEXTS:
            process.join(0.05)
            if process.exitcode is not None:
                raise RuntimeError(f"the flood ended by itself (exit code {process.exitcode})")
        yield
    finally:
        process.terminate()
        process.join()


def _pour(url: str, models: dict[str, str], done: "Synchronized[int]") -> None:
    with Producer.from_url(url, embed_model=models["HEADRACE_EMBED_MODEL"]) as producer:
        for number, _ in enumerate(producer.iter_embed(_numbered()), start=1):
            done.value = number


def _numbered() -> Iterator[str]:
    corpus = texts(_TEXTS)
    for number in count():
        yield f"{number}. {corpus[number % _TEXTS]}"
