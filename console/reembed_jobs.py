"""The commands on detached re-embeddings: list, watch, cancel, worker."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from console import reembed_views, views
from producer.bulk.order import Order
from producer.errors import RedisUnavailable
from producer.settings import ProducerSettings, StoreSettings, load
from workers.options import Command, Interrupted, OneLineError, settings_options
from workers.settings import WorkerSettings

if TYPE_CHECKING:
    import redis

    from producer.bulk.detached import DetachedJob

_LOOK_EVERY_S = 1.0
_LINE_EVERY_S = 5.0
_NOT_FOR_LOOKING = {
    "embed_model",
    "rerank_model",
    "timeout_s",
    "bulk_timeout_s",
    "lane_limit",
    "lane_limit_bytes",
    "max_text_bytes",
}
_looks = settings_options(ProducerSettings, leave_out=_NOT_FOR_LOOKING)
_for_the_worker = settings_options(
    WorkerSettings, leave_out={name for name in WorkerSettings.__dataclass_fields__ if name != "log_level"}
)
_for_its_runs = settings_options(StoreSettings, leave_out={"qdrant_url"})


def detach(order: Order, settings: ProducerSettings) -> str:
    """Make an order a job of RQ's; return its id. What `detached_line` says of it is to be printed."""
    from producer.bulk.jobs import enqueue  # noqa: PLC0415 - RQ takes a tenth of a second to load

    with _queue(settings) as connection:
        return enqueue(order, settings, connection)


def detached_line(job_id: str) -> str:
    """What to tell the person who has detached a run."""
    return f"detached as job {job_id}; a `headrace reembed worker` runs it: headrace reembed watch {job_id}"


@click.command("list", cls=Command, epilog="Example: headrace reembed list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@_looks
def list_jobs(as_json: bool, **flags: Any) -> None:
    """List detached runs, newest first.

    Ended ones are kept for 7 days.
    """
    from producer.bulk import detached  # noqa: PLC0415 - RQ takes a tenth of a second to load

    settings = load(ProducerSettings, os.environ, **flags)
    with _queue(settings) as connection:
        jobs = detached.list_jobs(connection, settings.namespace)
    if as_json:
        for job in jobs:
            click.echo(json.dumps(reembed_views.job_json(job)))
    elif jobs:
        views.show(reembed_views.jobs_table(jobs, time.time()), wide=True)
    else:
        click.echo("no detached re-embedding is known")


@click.command(cls=Command, epilog="Example: headrace reembed watch 3fa9c1d20b7e")
@click.argument("job_id", metavar="ID")
@_looks
def watch(job_id: str, **flags: Any) -> None:
    """Show a detached run until its end.

    Exits with 0 if it finishes, and with 1 and the reason if not. Ctrl-C ends the watching, not the run.
    """
    settings = load(ProducerSettings, os.environ, **flags)
    try:
        with _queue(settings) as connection:
            job = _watch(connection, settings.namespace, job_id)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped watching; job {job_id} goes on") from None
    if job.status != "finished":
        reason = job.error or f"it was {job.status}"
        raise OneLineError(f"job {job_id} has not finished: {reason}")
    click.echo(reembed_views.outcome_line(job))


@click.command(cls=Command, epilog="Example: headrace reembed cancel 3fa9c1d20b7e")
@click.argument("job_id", metavar="ID")
@_looks
def cancel(job_id: str, **flags: Any) -> None:
    """Take a detached run off the queue, or stop it.

    Its checkpoint stays where its worker keeps it, so that the run can go on from there.
    """
    from producer.bulk import detached  # noqa: PLC0415 - RQ takes a tenth of a second to load

    settings = load(ProducerSettings, os.environ, **flags)
    with _queue(settings) as connection:
        before = detached.find_job(connection, settings.namespace, job_id)
        if before.over:
            raise OneLineError(f"job {job_id} is over: it was {before.status}")
        job = detached.cancel_job(connection, settings.namespace, job_id)
    if job.status not in ("canceled", "stopped"):
        raise OneLineError(f"job {job_id} ended before it could be stopped: it was {job.status}")
    click.echo(f"job {job_id} is {job.status} after {job.rows} rows; the same command with --resume goes on from there")


@click.command(cls=Command, epilog="Example: headrace reembed worker --burst")
@click.option("--burst", is_flag=True, help="End when the queue is empty.")
@click.option("--check", is_flag=True, help="Run nothing: exit with 0 only if a worker of this host is alive.")
@_looks
@_for_its_runs
@_for_the_worker
def worker(burst: bool, check: bool, **flags: Any) -> None:
    """Run detached re-embeddings.

    One at a time, each in a process of its own. Files and embedded stores that an order names must be there on this
    host, under the same paths. SIGTERM or Ctrl-C waits for the running one; a second one ends it as well, and the next
    worker takes it up at its checkpoint. It is RQ's worker, and `rq info` shows it.
    """
    from console.reembed_worker import alive_here, lend_environment, run_worker  # noqa: PLC0415 - RQ is slow to load
    from workers.process import configure_logging  # noqa: PLC0415 - only a worker logs

    level = load(WorkerSettings, os.environ, log_level=flags.pop("log_level")).log_level
    state_dir = flags.pop("state_dir")
    settings = load(ProducerSettings, os.environ, **flags)
    if check:
        alive = alive_here(settings)
        if not alive:
            raise OneLineError("no worker of detached re-embeddings is alive on this host")
        click.echo(f"{alive} workers of detached re-embeddings alive on this host")
        return
    lend_environment(
        {
            "REDIS_URL": settings.redis_url,
            "HEADRACE_REDIS_USER": settings.redis_user,
            "HEADRACE_STATE_DIR": load(StoreSettings, os.environ, state_dir=state_dir).state_dir,
        }
    )
    configure_logging(level)
    run_worker(settings, burst=burst, log_level=level)


commands = [list_jobs, watch, cancel, worker]
"""For the group `headrace reembed`."""


@contextmanager
def _queue(settings: ProducerSettings) -> Iterator["redis.Redis"]:
    from producer.bulk.job_queue import connect_queue  # noqa: PLC0415 - RQ takes a tenth of a second to load

    with connect_queue(settings) as connection:
        yield connection


def _watch(connection: "redis.Redis", namespace: str, job_id: str) -> "DetachedJob":
    """Look once a second, and show what changes, until the job is over; a Redis that is away is waited for."""
    from producer.bulk.detached import count_workers, find_job  # noqa: PLC0415 - RQ is slow to load

    job = find_job(connection, namespace, job_id)
    silence = reembed_views.Silence()
    with reembed_views.watching(_LINE_EVERY_S) as show:
        while not job.over:
            try:
                waiting = job.status == "queued" and not count_workers(connection, namespace)
                show(job, "no worker runs: headrace reembed worker" if waiting else silence.note(job))
                time.sleep(_LOOK_EVERY_S)
                job = find_job(connection, namespace, job_id)
            except RedisUnavailable as error:
                show(job, str(error))
                time.sleep(_LOOK_EVERY_S)
    return job
