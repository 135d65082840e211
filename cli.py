"""The command line: parse, call, print."""

import json
import os
import socket
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from console import dead, evaluate, optimize, reembed, search, tune, views
from console.demo import run_demo
from console.pools import require_pool
from console.up import run_up
from producer import InvalidRequest, Producer, ProducerSettings
from producer.requests import check_top_n, pair_rows, text_rows
from producer.settings import load
from producer.wire.models import TASKS, TaskName
from workers import embed_worker, rerank_worker
from workers.options import HELP_FLAGS, Command, Decorated, Group, OneLineError, settings_options

_LINES_PER_CALL = 256
_MODELS = {"embed_model", "rerank_model"}
_FOR_WORK = {"timeout_s", "bulk_timeout_s", "lane_limit", "lane_limit_bytes", "max_text_bytes"}


def _work_options(task: TaskName, timeout: str) -> Callable[[Decorated], Decorated]:
    """Options of a command that sends work to the pool of a task: `--model` is that pool's."""
    taken = {f"{task}_model", timeout, "max_text_bytes"}
    return settings_options(
        ProducerSettings, leave_out=(_MODELS | _FOR_WORK) - taken, rename={f"{task}_model": "--model"}
    )


def _look_options() -> Callable[[Decorated], Decorated]:
    """Options of a command that only looks."""
    return settings_options(ProducerSettings, leave_out=_MODELS | _FOR_WORK)


def _producer(flags: dict[str, Any]) -> Producer:
    return Producer(load(ProducerSettings, os.environ, **flags))


@click.group(cls=Group, context_settings=HELP_FLAGS)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(package_name="headrace")
def main(debug: bool) -> None:
    """Text-model inference over Redis streams: embed and rerank, batched by pools of workers."""


@main.command(cls=Command, epilog="Example: headrace up --offline --port 6379")
@click.option("--offline", is_flag=True, help="Use the packaged offline models for both pools.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of Redis (default: REDIS_URL's, or 6379); 0 is any.")
@click.option("--data", type=click.Path(file_okay=False), help="Keep Redis's append-only file in this folder.")
def up(offline: bool, port: int | None, data: str | None) -> None:
    """Run Redis and both pools on this machine.

    In the foreground, until Ctrl-C. The pools take their settings from the environment.
    """
    run_up(os.environ, offline=offline, port=port, data_directory=Path(data) if data else None)


@main.command(cls=Command, epilog="Example: headrace demo")
def demo() -> None:
    """Try everything on sample data, then exit.

    With the offline models; whatever it starts is stopped again.
    """
    run_demo(os.environ)


@main.group(epilog="Example: headrace worker embed --model offline")
def worker() -> None:
    """Run a pool of worker processes."""


worker.add_command(embed_worker.main)
worker.add_command(rerank_worker.main)
main.add_command(dead.main)
main.add_command(tune.main)
main.add_command(optimize.main)
main.add_command(reembed.main)
main.add_command(search.main)
main.add_command(evaluate.main)


@main.group(epilog="Example: headrace enqueue embed 'where can I swim?'")
def enqueue() -> None:
    """Send texts to a pool, wait, and print the results."""


@enqueue.command("embed", cls=Command, epilog="Example: headrace enqueue embed --kind query --json 'where can I swim?'")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT…")
@click.option("--kind", default="query", show_default=True, metavar="query|passage", help="What the texts are.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@_work_options("embed", "timeout_s")
def enqueue_embed(texts: tuple[str, ...], kind: str, as_json: bool, **flags: Any) -> None:
    """Turn texts into vectors; "-" reads lines."""
    with _producer(flags) as producer:
        lines = _arguments(texts)
        sent = False
        while chunk := list(islice(lines, _LINES_PER_CALL)):
            text_rows(chunk, kind, producer.settings.max_text_bytes)
            if not sent:
                require_pool(producer, "embed")
            sent = True
            result = producer.embed_result(chunk, kind)
            if not as_json:
                views.show(views.embed_table(chunk, result))
                continue
            for index, cached in enumerate(result.cached):
                click.echo(
                    json.dumps(
                        {
                            "model": result.model,
                            "dimension": result.dimension,
                            "embedding": result.embeddings[index].tolist(),
                            "cached": cached,
                            "latency_ms": round(result.latency_ms, 3),
                        }
                    )
                )
        if not sent:
            raise InvalidRequest("standard input holds no text", code="empty_text")


@enqueue.command(
    "rerank", cls=Command, epilog="Example: headrace enqueue rerank 'swim' 'a lake' 'a tax form' --top-n 1"
)
@click.argument("query")
@click.argument("documents", nargs=-1, required=True, metavar="DOC…")
@click.option("--top-n", type=int, help="Print so many of the best only.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@_work_options("rerank", "timeout_s")
def enqueue_rerank(query: str, documents: tuple[str, ...], top_n: int | None, as_json: bool, **flags: Any) -> None:
    """Rank documents by a query; "-" reads lines."""
    with _producer(flags) as producer:
        candidates = list(_arguments(documents))
        check_top_n(top_n)
        pair_rows(query, candidates, producer.settings.max_text_bytes)
        require_pool(producer, "rerank")
        result = producer.rerank(query, candidates, top_n)
    if not as_json:
        views.show(views.rerank_table(result))
        return
    results = [{"index": item.index, "score": item.score, "document": item.document} for item in result.results]
    click.echo(
        json.dumps(
            {
                "model": result.model,
                "results": results,
                "count": len(results),
                "latency_ms": round(result.latency_ms, 3),
            }
        )
    )


@main.command(cls=Command, epilog="Example: headrace status --json")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@_look_options()
def status(as_json: bool, **flags: Any) -> None:
    """Show lanes, workers and cache of every queue."""
    with _producer(flags) as producer:
        states = producer.queue_states()
    if as_json:
        click.echo(json.dumps(views.status_json(states)))
    else:
        views.show(*views.status_view(states))


@main.command(cls=Command, epilog="Example: headrace health embed --here")
@click.argument("task", type=click.Choice(TASKS))
@click.option("--model", help="Model of that pool; without it, the one of the environment or the default.")
@click.option("--here", is_flag=True, help="Count only workers of this host or container.")
@_look_options()
def health(task: TaskName, model: str | None, here: bool, **flags: Any) -> None:
    """Check that a pool is alive.

    Exits with 0 only if a live worker has its model loaded and makes progress.
    """
    with _producer({**flags, f"{task}_model": model}) as producer:
        state = producer.queue_state(task)
    host = socket.gethostname()
    workers = [worker for worker in state.workers if not here or worker.heartbeat.host == host]
    healthy = sum(worker.healthy for worker in workers)
    line = f"{state.task}:{state.tag}: {healthy} of {len(workers)} workers healthy"
    if not healthy:
        raise OneLineError(f"{line}, {views.health_reason(workers)}")
    click.echo(line)


def _arguments(values: tuple[str, ...]) -> Iterator[str]:
    for value in values:
        if value == "-":
            yield from (line.rstrip("\n") for line in sys.stdin if line.strip())
        else:
            yield value


if __name__ == "__main__":
    main()
