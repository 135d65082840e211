"""Collections of an embedded Qdrant, filled with fake vectors as a re-embedding with the fake model would."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from producer.provenance import Provenance
from producer.wire.models import resolve
from tests.integration.harness.fake_model import DIMENSION, vector_of

USERS = (7, 8)
TEXTS = ("a quiet lake", "a tax form", "a deep pool", "an old church organ", "a boat on the river")


def make_contacts(client: QdrantClient, name: str, *, model: str = "") -> None:
    """Make a collection of texts for each of two users; with a model, it says that the vectors are that model's."""
    make_collection(client, name, DIMENSION, model=model)
    records = [{"user_id": user, "text": f"{text} of {user}"} for user in USERS for text in TEXTS]
    upsert(client, name, records, [vector_of(str(record["text"])) for record in records])


def make_collection(client: QdrantClient, name: str, dimension: int, *, model: str = "") -> None:
    """Make an empty collection."""
    metadata: dict[str, Any] | None = None
    if model:
        origin = Provenance(
            model=model,
            tag=resolve("embed", model).tag,
            dimension=dimension,
            kind="passage",
            template="{text}",
            source="test",
            state="complete",
        )
        metadata = origin.as_metadata()
    params = models.VectorParams(size=dimension, distance=models.Distance.COSINE)
    client.create_collection(name, params, metadata=metadata)


def upsert(
    client: QdrantClient, name: str, records: Sequence[Mapping[str, Any]], vectors: Sequence[np.ndarray[Any, Any]]
) -> None:
    """Put records into a collection, numbered from 1."""
    points = [
        models.PointStruct(id=number, vector=vector.tolist(), payload=dict(record))
        for number, (record, vector) in enumerate(zip(records, vectors, strict=True), 1)
    ]
    client.upsert(name, points)


def point_alias(client: QdrantClient, alias: str, collection: str) -> None:
    """Let the alias stand for a collection."""
    create = models.CreateAlias(collection_name=collection, alias_name=alias)
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=create)])
