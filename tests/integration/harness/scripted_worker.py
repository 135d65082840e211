"""`headrace reembed worker` with scripted runs, as a program; as a module for `rq worker --config` to import."""

from console.reembed_jobs import worker
from tests.integration.harness import scripted_runs

scripted_runs.install()

if __name__ == "__main__":
    worker()
