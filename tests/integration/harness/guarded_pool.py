"""`python -m tests.integration.harness.guarded_pool`: a fake pool that keeps its record where its user may not write.

The record goes through the connection that RECORD_URL names; all else is the worker's, under the worker's rights.
"""

import os
from dataclasses import replace

from producer.settings import load
from tests.integration.harness.fake_model import load_in_pool
from workers.pool import Pool
from workers.process import LoadedModel, configure_logging
from workers.settings import WorkerSettings


def load_with_record(settings: WorkerSettings) -> LoadedModel:
    """Load the fake model, with its record on a connection of its own."""
    return load_in_pool(replace(settings, redis_url=os.environ["RECORD_URL"]))


def main() -> None:
    """Run the pool until SIGTERM."""
    settings = load(WorkerSettings, os.environ)
    configure_logging(settings.log_level)
    raise SystemExit(Pool("embed", load_with_record, settings).run())


if __name__ == "__main__":
    main()
