"""`python -m tests.integration.harness.stillborn`: a pool whose processes end before they have begun to serve."""

import os

from producer.settings import load
from workers.pool import Pool
from workers.process import LoadedModel, configure_logging
from workers.settings import WorkerSettings


def die(_settings: WorkerSettings) -> LoadedModel:
    """The `load` of a model that takes its process down."""
    os._exit(3)


def main() -> None:
    """Run the pool until it gives up."""
    settings = load(WorkerSettings, os.environ)
    configure_logging(settings.log_level)
    raise SystemExit(Pool("embed", die, settings).run())


if __name__ == "__main__":
    main()
