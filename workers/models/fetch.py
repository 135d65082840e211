"""Puts a pool's model into the cache folder ahead of time: `python -m workers.models.fetch embed`, in an image's build.

Not part of the command line: on a machine with a hub, a worker fetches its model by itself.
"""

import os
import sys

from producer.errors import HeadraceError
from producer.settings import load
from producer.wire.models import TASKS, TaskName, split_revision
from workers.models.fastembed_models import load_embedder, load_reranker
from workers.settings import WorkerSettings


def fetch(task: TaskName, settings: WorkerSettings) -> str:
    """Load the task's model once, so that its files stay in the cache folder; return a line that tells its weights.

    Loading is the point: a worker started on the same folder later goes the same way and needs nothing else.

    Raises:
        HeadraceError: as `load_embedder` and `load_reranker` do.
    """
    name, _ = split_revision(settings.model(task))
    load_model = load_embedder if task == "embed" else load_reranker
    # Not prepared: that belongs to one kind of CPU, and an image runs anywhere.
    model = load_model(name, cache_dir=settings.cache_path, threads=1, prepare_bytes=float("inf"))
    return f"{task} model {name} is in {settings.cache_path}, weights SHA-256 {model.weights_sha256()}"


def main() -> None:
    """Fetch the model that the environment names; its only argument is the task."""
    tasks = {str(task): task for task in TASKS}
    if len(sys.argv) != 2 or sys.argv[1] not in tasks:
        sys.exit(f"usage: python -m workers.models.fetch {'|'.join(tasks)}")
    try:
        print(fetch(tasks[sys.argv[1]], load(WorkerSettings, os.environ)))
    except HeadraceError as error:
        sys.exit(f"headrace: {error}")


if __name__ == "__main__":
    main()
