"""`python -m benchmarks.noop_pool`: an embed pool whose model does nothing, so that only the way costs time."""

import os
from collections.abc import Sequence

import numpy as np

from producer.results import Vector
from producer.settings import load as load_settings
from producer.wire.messages import ModelCard
from producer.wire.models import resolve
from workers.pool import Pool
from workers.process import LoadedModel, configure_logging
from workers.settings import WorkerSettings
from workers.tasks import EmbedTask, Measure

MODEL = "noop"
DIMENSION = 384
VECTOR = np.random.default_rng(1).uniform(-0.1, 0.1, DIMENSION).astype(np.float32)
"""Every text's: with as many digits as a real one, should somebody write it down."""


class NoopModel:
    """Every text is one token, and its vector is always the same."""

    dimension = DIMENSION

    def measure(self, texts: Sequence[str]) -> list[Measure]:
        return [Measure(tokens=1, truncated=False)] * len(texts)

    def embed(self, texts: Sequence[str]) -> Vector:
        return np.tile(VECTOR, (len(texts), 1))


def load(settings: WorkerSettings) -> LoadedModel:
    """What a worker process runs instead of loading a model."""
    card = ModelCard(
        task="embed",
        model=settings.embed_model,
        dimension=DIMENSION,
        max_tokens=0,
        weights_sha256="none",
        query_prefix="",
        passage_prefix="",
        batch_invariant=True,
        method="",
    )
    return LoadedModel(task=EmbedTask(NoopModel(), resolve("embed", settings.embed_model)), card=card)


def main() -> None:
    """Run the pool until SIGTERM."""
    settings = load_settings(WorkerSettings, os.environ)
    configure_logging(settings.log_level)
    raise SystemExit(Pool("embed", load, settings).run())


if __name__ == "__main__":
    main()
