"""Takes the place of the runs of orders: what a run does stands in the order, and what it did in a file beside.

The order's source is a JSON file with a list of steps, one for each attempt; the last one counts for all that follow.
"""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rq.serializers import DefaultSerializer

from producer.bulk import jobs, runs
from producer.bulk.order import Order
from producer.bulk.pipeline import Outcome
from producer.bulk.progress import Progress
from producer.errors import ConfigurationError, StoreUnavailable
from producer.settings import ProducerSettings, StoreSettings

LINE_OF_A_DEFECT = "a text of a user"


def attempts(source: Path) -> list[dict[str, Any]]:
    """What the attempts of a source's run have noted, in order."""
    log = source.with_suffix(".log")
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def write_script(source: Path, *steps: str) -> Path:
    """Make a source whose attempts do this: "finish", "hold" (until there is a file `.go`), "die", "unavailable",
    "configuration" or "defect"."""
    source.write_text(json.dumps(steps))
    return source


def run_order(
    order: Order,
    settings: ProducerSettings,
    store: StoreSettings,
    *,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> Outcome:
    """Note the attempt, and do what the script says."""
    source = Path(order.source)
    steps = json.loads(source.read_text())
    number = len(attempts(source))
    noted = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "job": order.job,
        "url": settings.redis_url,
        "model": settings.embed_model,
        "namespace": settings.namespace,
        "state_dir": store.state_dir,
    }
    with source.with_suffix(".log").open("a") as log:
        log.write(json.dumps(noted) + "\n")
    progress = Progress(
        rows=5 + number,
        total=10,
        cached_rows=1,
        rejected=0,
        elapsed_s=1.0,
        rows_per_s=2.5,
        tokens_per_s=100.0,
        eta_s=2.0,
    )
    _step(steps[min(number, len(steps) - 1)], lambda: on_progress(progress), go=source.with_suffix(".go"))
    return Outcome(
        rows=9,
        rejected=1,
        rejects_path="/rejects",
        checked="counts agree",
        elapsed_s=1.0,
        resumed_rows=5,
        model="m",
        template="{text}",
    )


def betray(job: Any, *_: Any) -> None:
    """A callback that must never be called; it makes the folder that the job's argument names."""
    Path(job.args[0]).mkdir()


def _step(step: str, progress: Callable[[], None], go: Path) -> None:
    if step == "configuration":  # before any progress
        raise ConfigurationError("the sink exists: choose another name")
    progress()
    if step == "hold":
        while not go.exists():
            time.sleep(0.05)
            progress()
    if step == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if step == "unavailable":
        raise StoreUnavailable("Qdrant at nowhere cannot be reached")
    if step == "defect":
        raise ValueError(LINE_OF_A_DEFECT)


def _refuse(*_: object) -> Any:
    raise AssertionError("RQ's default serializer was used")


def install() -> None:
    """Have jobs of this process, and of what it forks, run scripts, without pauses and without pickle."""
    runs.run_order = run_order
    jobs.pause_s = lambda failures: 0.0 * failures
    DefaultSerializer.dumps = DefaultSerializer.loads = _refuse
