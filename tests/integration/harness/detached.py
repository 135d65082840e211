"""Detached runs for tests: orders of scripted runs, workers that carry them out, and the commands on them."""

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner, Result
from rq.utils import utcformat

from console.reembed_jobs import commands, detach
from producer.bulk.detached import count_workers
from producer.bulk.job_queue import ReembedJob, connect_queue, queue_name
from producer.bulk.order import Order
from producer.settings import ProducerSettings
from tests.integration.harness.processes import ROOT, Program
from tests.integration.harness.scripted_runs import attempts, write_script
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until
from workers.options import Group

SCRIPTED_WORKER = "tests.integration.harness.scripted_worker"

reembed = click.Group("reembed", commands={str(command.name): command for command in commands})
headrace = Group("headrace", commands={"reembed": reembed})


def settings_of(site: Site, **more: Any) -> ProducerSettings:
    """A producer's settings for the site."""
    return ProducerSettings(redis_url=site.url, namespace=site.namespace, embed_model=site.model, **more)


def detach_script(site: Site, source: Path, *steps: str) -> str:
    """Detach a scripted run; return the job's id."""
    order = Order(source=str(write_script(source, *steps)), sink=str(source.with_suffix(".out")))
    return detach(order, settings_of(site))


def start_worker(site: Site, folder: Path, *options: str, scripted: bool = True, **environ: str) -> Program:
    """`headrace reembed worker` as a program, for scripted or for real runs."""
    command = ["-m", SCRIPTED_WORKER] if scripted else ["-c", "from console.reembed_jobs import worker; worker()"]
    return Program([sys.executable, *command, *options], site.environ(**environ), folder)


def run_burst(site: Site, folder: Path, *, scripted: bool = True, **environ: str) -> Program:
    """Let a worker empty the queue; return it when it has ended well."""
    worker = start_worker(site, folder, "--burst", scripted=scripted, **environ)
    assert worker.wait() == 0, worker.stderr
    return worker


def start_rq(folder: Path, *arguments: str) -> Program:
    """The program `rq`, in an environment that names no Redis."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "REDIS_", "RQ_"))}
    environ["PYTHONPATH"] = str(ROOT)
    return Program([str(Path(sys.executable).with_name("rq")), *arguments], environ, folder)


def call(site: Site, *arguments: str, **environ: str) -> Result:
    """One of the commands in this process."""
    return CliRunner().invoke(headrace, ["reembed", *arguments], env=site.environ(**environ))


def listed(site: Site) -> list[dict[str, Any]]:
    """What `list --json` prints."""
    done = call(site, "list", "--json")
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def status_of(site: Site, job_id: str) -> str:
    """The status of one job as `list` has it."""
    statuses: Sequence[str] = [job["status"] for job in listed(site) if job["id"] == job_id]
    return statuses[0] if statuses else ""


def silence(site: Site) -> None:
    """Let the time pass after which RQ takes a silent worker for gone."""
    registry = f"rq:wip:{queue_name(site.namespace)}"
    members: list[bytes] = site.client.zrange(registry, 0, -1)  # type: ignore[assignment]
    assert members
    site.client.zadd(registry, dict.fromkeys(members, 1))


def abandon(site: Site, folder: Path, worker_site: Site | None = None) -> str:
    """Leave a job behind whose worker, at its own site if it has one, was killed long ago; return its id."""
    source = folder / "abandoned.json"
    job_id = detach_script(site, source, "hold")
    worker = start_worker(worker_site or site, folder / "killed")
    try:
        wait_until(lambda: attempts(source), what="the run's start")
    finally:
        worker.kill_all()
    silence(site)
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    site.client.hset(ReembedJob.key_for(job_id), "last_heartbeat", utcformat(long_ago))
    return job_id


def take_over(site: Site, folder: Path, last: Path) -> None:
    """Have a worker run what is queued, kill it in the last run, and have another one carry that out."""
    worker = start_worker(site, folder / "first")
    try:
        wait_until(lambda: attempts(last), what="the last run's start")
    finally:
        worker.kill_all()
    silence(site)
    run_burst(site, folder / "second")


def look_at_all(site: Site) -> None:
    """Look at every job, and for workers."""
    for job in listed(site):
        call(site, "watch", job["id"])
    with connect_queue(settings_of(site)) as connection:
        count_workers(connection, site.namespace)
