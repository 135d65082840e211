"""`python -m tests.integration.harness.fake_pool`: an embed pool with the fake model, set by the environment."""

import os

from producer.settings import load
from tests.integration.harness.fake_model import load_in_pool
from workers.pool import Pool
from workers.process import configure_logging
from workers.settings import WorkerSettings


def main() -> None:
    """Run the pool until SIGTERM."""
    settings = load(WorkerSettings, os.environ)
    configure_logging(settings.log_level)
    raise SystemExit(Pool("embed", load_in_pool, settings).run())


if __name__ == "__main__":
    main()
