"""An unending bulk flood from a process of its own: numbered copies of the corpus through `iter_embed`."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from benchmarks.corpus import texts
from benchmarks.site import Site
from producer import Producer
from producer.orphans import end_with_parent

_TEXTS = 64
"""Every so many rows the lengths repeat, so that any stretch of the flood is as hard as any other."""


@contextmanager
def flood(place: Site) -> Iterator[None]:
    """Flood the bulk lane of the embed pool until the block ends; begins when the first vectors are back."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.flood", place.url, place.models["HEADRACE_EMBED_MODEL"]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call; the child runs no Python after it
    )
    with process:
        try:
            if process.stdout is None or not process.stdout.readline():
                raise RuntimeError(f"the flood ended by itself (exit code {process.wait()})")
            yield
        finally:
            process.terminate()


def _pour(url: str, model: str) -> None:
    with Producer.from_url(url, embed_model=model) as producer:
        for number, _ in enumerate(producer.iter_embed(_numbered()), start=1):
            if number == _TEXTS:
                print("flooded", flush=True)


def _numbered() -> Iterator[str]:
    corpus = texts(_TEXTS)
    for number in count():
        yield f"{number}. {corpus[number % _TEXTS]}"


if __name__ == "__main__":
    _pour(*sys.argv[1:])
