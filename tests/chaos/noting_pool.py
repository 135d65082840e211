"""`python -m tests.chaos.noting_pool`: a pool with the campaigns' fake model, set by the environment."""

import os

from producer.settings import load as load_settings
from tests.chaos.noting_model import load, task_of_pool
from workers.pool import Pool
from workers.process import configure_logging
from workers.settings import WorkerSettings

PROGRAM = "tests.chaos.noting_pool"


def main() -> None:
    """Run the pool until SIGTERM."""
    settings = load_settings(WorkerSettings, os.environ)
    configure_logging(settings.log_level)
    raise SystemExit(Pool(task_of_pool(), load, settings).run())


if __name__ == "__main__":
    main()
