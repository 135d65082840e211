"""Rows, spaces and runs for the tests of what re-embeddings read from and write to."""

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from producer.bulk.conditions import Conditions
from producer.bulk.ends import Embed, Embedded, Json, Record, Sink, Source, Space, Spoilt, Totals
from producer.results import Vector

DIMENSION = 4
ALL = Conditions()
SPACE = Space(
    model="model", tag="tag", dimension=DIMENSION, kind="passage", template="{text}", source="records", run="0123abcd"
)


def row(identity: str | int, vector: Sequence[float] | None = None) -> Embedded:
    """A row with a vector of its own, drawn by its identity."""
    if vector is None:
        vector = np.random.default_rng(sum(str(identity).encode())).standard_normal(DIMENSION).tolist()
    record = Record(id=identity, fields={"text": "t"}, position=0, place=f"records line {identity}")
    return Embedded(record=record, text="t", vector=np.array(vector, np.float32))


def rows(count: int, start: int = 0) -> list[Embedded]:
    return [row(f"r{number}") for number in range(start, start + count)]


def totals(count: int) -> Totals:
    return Totals(rows=count, rejected=0, partial=False, unique_ids=False)


def no_embed(texts: Sequence[str]) -> Vector:
    raise AssertionError(f"{len(texts)} texts embedded")


def run(sink: Sink, batches: Sequence[Sequence[Embedded]], mark: Json = None, written: int = 0) -> list[Json]:
    """Write all batches, after a mark with so many rows, and finish; return the marks."""
    sink.begin(SPACE, mark)
    marks = [sink.write(batch) for batch in batches]
    finish(sink, written + sum(map(len, batches)))
    return marks


def finish(sink: Sink, count: int) -> str:
    embed: Embed = no_embed
    said = sink.finish(totals(count), embed)
    sink.close()
    return said


def read(source: Source, where: Conditions = ALL, after: Json = None) -> list[Record]:
    """The records, none of them spoilt."""
    found = []
    for record in source.records(where, after):
        assert isinstance(record, Record), record
        found.append(record)
    return found


def spoilt(source: Source) -> Spoilt:
    """The only record, which is spoilt."""
    (found,) = source.records(ALL)
    assert isinstance(found, Spoilt)
    return found


def tree(folder: Path) -> dict[str, Any]:
    """All that is in a folder, hidden or not: names and contents."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def files_no_longer_than(count: int) -> Iterator[None]:
    """A disk that is full, even for root: no file of this process grows beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
