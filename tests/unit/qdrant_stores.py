"""An embedded Qdrant in a test's folder, a fake embedding of texts, and runs against them without a queue."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from producer.bulk.ends import Embedded, Record, Source, Space, Totals
from producer.bulk.qdrant_sink import QdrantSink
from producer.qdrant import QdrantAddress, connect
from producer.results import Vector

DIMENSION = 4


def address_in(folder: Path, collection: str = "contacts") -> QdrantAddress:
    return QdrantAddress.parse(f"qdrant+local:{folder}#{collection}")


def open_store(folder: Path) -> QdrantClient:
    """A client that may make the store; whoever opens it closes it."""
    return connect(address_in(folder), create=True)


def fill(
    client: QdrantClient,
    name: str,
    points: Mapping[Any, dict[str, Any]],
    *,
    size: int = DIMENSION,
    distance: models.Distance = models.Distance.COSINE,
    alias: str = "",
) -> None:
    """Make a collection of these points, their vectors all alike, and an alias of it."""
    client.create_collection(name, vectors_config=models.VectorParams(size=size, distance=distance))
    if points:
        client.upsert(name, [models.PointStruct(id=i, vector=[1.0] * size, payload=p) for i, p in points.items()])
    if alias:
        point_at(client, alias, name)


def point_at(client: QdrantClient, alias: str, name: str) -> None:
    made = models.CreateAlias(collection_name=name, alias_name=alias)
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=made)])


def embed(texts: Sequence[str]) -> Vector:
    """One direction per text, always the same."""
    seeds = [int.from_bytes(sha256(text.encode()).digest()[:8], "little") for text in texts]
    rows = [np.random.default_rng(seed).normal(size=DIMENSION) for seed in seeds]
    return np.asarray(rows, dtype=np.float32).reshape(len(texts), DIMENSION)


def embedded(identity: str | int, text: str, **fields: Any) -> Embedded:
    """A row as the pipeline hands it to a sink."""
    record = Record(id=identity, fields={"text": text, **fields}, position=None, place="here")
    return Embedded(record=record, text=text, vector=embed([text])[0])


def rows(count: int) -> list[Embedded]:
    return [embedded(number, f"text {number}") for number in range(count)]


def space(*, run: str = "run-1", dimension: int = DIMENSION, model: str = "fake") -> Space:
    return Space(
        model=model, tag="fake-00000000", dimension=dimension, kind="passage", template="{text}", source="s", run=run
    )


def totals(count: int, *, partial: bool = False, unique_ids: bool = True) -> Totals:
    return Totals(rows=count, rejected=0, partial=partial, unique_ids=unique_ids)


def run(
    address: QdrantAddress, written: Sequence[Embedded], *, source: Source | None = None, of: Space | None = None
) -> str:
    """A whole run into a collection; what was checked at its end."""
    sink = QdrantSink(address, source=source)
    try:
        sink.check(of or space(), resuming=False, overwrite=False)
        sink.begin(of or space())
        sink.write(written)
        return sink.finish(totals(len(written)), embed)
    finally:
        sink.close()
