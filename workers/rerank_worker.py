"""The rerank pool: wires the cross-encoder to the engine, and `main()`."""

import os
from typing import Any

import click

from producer.settings import load as load_settings
from producer.wire.messages import ModelCard
from producer.wire.models import split_revision
from workers.calibration import calibrated
from workers.models.findings import method_of
from workers.options import PoolCommand, settings_options
from workers.pool import Pool
from workers.process import LoadedModel, configure_logging
from workers.selftest import reranker_is_invariant
from workers.settings import WorkerSettings
from workers.tasks import RerankTask


def load(settings: WorkerSettings) -> LoadedModel:
    """Load the cross-encoder and describe it."""
    from workers.models.fastembed_models import load_reranker  # noqa: PLC0415 - heavy; only children load it

    model = load_reranker(
        split_revision(settings.rerank_model)[0],
        cache_dir=settings.cache_path,
        threads=settings.threads,
        prepare_bytes=settings.prepare_bytes,
    )
    card = ModelCard(
        task="rerank",
        model=settings.rerank_model,
        dimension=0,
        max_tokens=model.max_tokens,
        weights_sha256=model.weights_sha256(),
        query_prefix="",
        passage_prefix="",
        batch_invariant=reranker_is_invariant(model),
        method=method_of(settings.rerank_model),
    )
    task = RerankTask(model)
    return LoadedModel(task=task, card=card, budget=calibrated(task, card, settings))


@click.command(
    "rerank", cls=PoolCommand, epilog="Example: headrace worker rerank --model offline --processes 1 --threads 2"
)
@settings_options(WorkerSettings, leave_out={"embed_model"}, rename={"rerank_model": "--model"})
def main(**flags: Any) -> None:
    """Run the rerank pool: documents to scores."""
    settings = load_settings(WorkerSettings, os.environ, **flags)
    configure_logging(settings.log_level)
    raise SystemExit(Pool("rerank", load, settings).run())


if __name__ == "__main__":
    main()
