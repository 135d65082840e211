"""`python -m tests.chaos.hostile_pool`: a pool of the task in FAKE_TASK with a fake model that remembers nothing.

Its memory is measured, and the fake model of other tests keeps all that it has computed.
"""

import os
from collections.abc import Sequence

from producer.settings import load
from producer.wire.models import TASKS
from tests.integration.harness.fake_model import FakeModel, Input, describe
from workers.pool import Pool
from workers.process import LoadedModel, configure_logging
from workers.settings import WorkerSettings


class ForgetfulModel(FakeModel):
    """Computes and keeps nothing."""

    def _run(self, batch: Sequence[Input]) -> None:
        pass


def load_embed(settings: WorkerSettings) -> LoadedModel:
    """The `load` of an embed pool."""
    return describe("embed", ForgetfulModel(), settings.embed_model)


def load_rerank(settings: WorkerSettings) -> LoadedModel:
    """The `load` of a rerank pool."""
    return describe("rerank", ForgetfulModel(), settings.rerank_model)


def main() -> None:
    """Run the pool until SIGTERM."""
    settings = load(WorkerSettings, os.environ)
    configure_logging(settings.log_level)
    task = next(task for task in TASKS if task == os.environ["FAKE_TASK"])
    raise SystemExit(Pool(task, load_embed if task == "embed" else load_rerank, settings).run())


if __name__ == "__main__":
    main()
