"""Detached runs for tests: orders of scripted runs, workers that carry them out, and the commands on them."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner, Result

from console.reembed_jobs import commands, detach
from producer.bulk.order import Order
from producer.settings import ProducerSettings
from tests.integration.harness.processes import ROOT, Program
from tests.integration.harness.scripted_runs import write_script
from tests.integration.harness.site import Site
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


def start_worker(site: Site, folder: Path, *options: str, **environ: str) -> Program:
    """`headrace reembed worker` for scripted runs, as a program."""
    return Program([sys.executable, "-m", SCRIPTED_WORKER, *options], site.environ(**environ), folder)


def run_burst(site: Site, folder: Path, **environ: str) -> Program:
    """Let a worker empty the queue; return it when it has ended well."""
    worker = start_worker(site, folder, "--burst", **environ)
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
