"""The embed pool: wires the embedding model to the engine, and `main()`."""

import os
from typing import Any

import click

from producer.settings import load as load_settings
from producer.wire.messages import ModelCard
from producer.wire.models import resolve, split_revision
from workers.calibration import calibrated
from workers.models.findings import method_of
from workers.options import PoolCommand, settings_options
from workers.pool import Pool
from workers.process import LoadedModel, configure_logging
from workers.selftest import embedder_is_invariant
from workers.settings import WorkerSettings
from workers.tasks import EmbedTask


def load(settings: WorkerSettings) -> LoadedModel:
    """Load the embedding model and describe it."""
    from workers.models.fastembed_models import load_embedder  # noqa: PLC0415 - heavy; only children load it

    spec = resolve("embed", settings.embed_model)
    model = load_embedder(
        split_revision(settings.embed_model)[0],
        cache_dir=settings.cache_path,
        threads=settings.threads,
        prepare_bytes=settings.prepare_bytes,
    )
    card = ModelCard(
        task="embed",
        model=settings.embed_model,
        dimension=model.dimension,
        max_tokens=model.max_tokens,
        weights_sha256=model.weights_sha256(),
        query_prefix=spec.query_prefix,
        passage_prefix=spec.passage_prefix,
        batch_invariant=embedder_is_invariant(model),
        method=method_of(settings.embed_model),
    )
    task = EmbedTask(model, spec)
    return LoadedModel(task=task, card=card, budget=calibrated(task, card, settings))


@click.command(
    "embed", cls=PoolCommand, epilog="Example: headrace worker embed --model offline --processes 2 --threads 1"
)
@settings_options(WorkerSettings, leave_out={"rerank_model"}, rename={"embed_model": "--model"})
def main(**flags: Any) -> None:
    """Run the embed pool: texts to vectors."""
    settings = load_settings(WorkerSettings, os.environ, **flags)
    configure_logging(settings.log_level)
    raise SystemExit(Pool("embed", load, settings).run())


if __name__ == "__main__":
    main()
