"""The commands on dead letters: list, show, retry, purge."""

import json
import os
import sys
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any

import click

from console import dead_views, views
from producer import DeadLetters, ProducerSettings
from producer.settings import load
from producer.wire.models import TASKS, TaskName
from workers.options import Command, OneLineError, settings_options

_LIMITS = {"lane_limit", "lane_limit_bytes"}
_NOT_FOR_LOOKING = {"embed_model", "rerank_model", "timeout_s", "bulk_timeout_s", "max_text_bytes"} | _LIMITS
_MOST_NAMED = 5

_task = click.argument("task", type=click.Choice(TASKS))
_letter_ids = click.argument("letter_ids", nargs=-1, metavar="[ID]…")
_model = click.option("--model", help="Model of that pool; without it, the one of the environment or the default.")
_looks = settings_options(ProducerSettings, leave_out=_NOT_FOR_LOOKING)
_enqueues = settings_options(ProducerSettings, leave_out=_NOT_FOR_LOOKING - _LIMITS)


@click.group("dead", epilog="Example: headrace dead list embed")
def main() -> None:
    """Look at dead letters, retry or delete them."""


@main.command("list", cls=Command, epilog="Example: headrace dead list embed --limit 20")
@_task
@click.option("--limit", type=click.IntRange(min=1), default=100, show_default=True, help="List at most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@_model
@_looks
def list_letters(task: TaskName, limit: int, as_json: bool, model: str | None, **flags: Any) -> None:
    """List dead letters, newest first.

    Never their texts: a text is told by its digest, and a job by its size.
    """
    with _open(task, model, flags) as dead:
        found = islice(dead.iterate(task), limit)
        if as_json:
            for letter in found:
                click.echo(json.dumps(dead_views.letter_json(letter, texts=False)))
            return
        first = next(found, None)
        if first is None:
            click.echo(f"no dead letters of {_name(dead, task)}")
            return
        views.show(dead_views.letters_table(chain([first], found), dead.now_ms()), wide=True)
        count = dead.count(task)
        if count > limit:
            click.echo(f"the newest {limit} of {count}; --limit shows more")


@main.command(cls=Command, epilog="Example: headrace dead show embed 1763900000000-0")
@_task
@click.argument("letter_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@_model
@_looks
def show(task: TaskName, letter_id: str, as_json: bool, model: str | None, **flags: Any) -> None:
    """Show one dead letter, with its texts."""
    with _open(task, model, flags) as dead:
        letter = dead.get(task, letter_id)
        lines = [] if as_json else dead_views.letter_lines(letter, dead.now_ms())
    click.echo(json.dumps(dead_views.letter_json(letter, texts=True)) if as_json else "\n".join(lines))


@main.command(cls=Command, epilog="Example: headrace dead retry embed --all")
@_task
@_letter_ids
@click.option("--all", "everything", is_flag=True, help="Retry all that are there now.")
@_model
@_enqueues
def retry(task: TaskName, letter_ids: tuple[str, ...], everything: bool, model: str | None, **flags: Any) -> None:
    """Put the jobs of dead letters on the bulk lane again.

    They may wait there for up to 24 hours. A letter is deleted once the lane has its rows; one whose results have been
    computed since is just deleted; one without a job that can be read stays.
    """
    _check_choice(letter_ids, everything)
    with _open(task, model, flags) as dead:
        report = dead.retry_all(task) if everything else dead.retry(task, letter_ids)
        left = dead.count(task) if report.lane_full else 0
    click.echo(dead_views.retry_line(report))
    problems = [_missing(report.missing)] if report.missing else []
    if report.lane_full:
        problems.append(f"the bulk lane is full, {dead_views.letters(left)} left: retry again later")
    if report.unreadable and not everything:
        problems.append(f"{report.unreadable} cannot be retried, see why: headrace dead show {task} ID")
    if problems:
        raise OneLineError("; ".join(problems))


@main.command(cls=Command, epilog="Example: headrace dead purge embed 1763900000000-0")
@_task
@_letter_ids
@click.option("--all", "everything", is_flag=True, help="Delete all of them.")
@click.option("--yes", is_flag=True, help="Do not ask before --all.")
@_model
@_looks
def purge(
    task: TaskName, letter_ids: tuple[str, ...], *, everything: bool, yes: bool, model: str | None, **flags: Any
) -> None:
    """Delete dead letters for good."""
    _check_choice(letter_ids, everything)
    with _open(task, model, flags) as dead:
        if everything:
            if not yes:
                _confirm(dead, task)
            click.echo(f"{dead_views.letters(dead.purge_all(task))} deleted")
            return
        asked = len(set(letter_ids))
        deleted = dead.purge(task, letter_ids)
    click.echo(f"{dead_views.letters(deleted)} deleted")
    if deleted < asked:
        raise OneLineError(f"{asked - deleted} of {asked} ids name no dead letter")


def _open(task: TaskName, model: str | None, flags: dict[str, Any]) -> DeadLetters:
    return DeadLetters(load(ProducerSettings, os.environ, **flags, **{f"{task}_model": model}))


def _check_choice(letter_ids: Sequence[str], everything: bool) -> None:
    if bool(letter_ids) == everything:
        raise click.UsageError("give the ids of dead letters, or --all" + (", not both" if everything else ""))


def _confirm(dead: DeadLetters, task: TaskName) -> None:
    if not sys.stdin.isatty():
        raise OneLineError("nothing was deleted: without a terminal to ask on, --all needs --yes")
    count = dead.count(task)
    if count and not click.confirm(f"Delete all {dead_views.letters(count)} of {_name(dead, task)}?", err=True):
        raise OneLineError("nothing was deleted")


def _name(dead: DeadLetters, task: TaskName) -> str:
    return f"{task}:{dead.queues[task].tag}"


def _missing(ids: Sequence[str]) -> str:
    named = ", ".join(ids[:_MOST_NAMED]) + (", …" if len(ids) > _MOST_NAMED else "")
    return f"no dead letter of the id {named}" if len(ids) == 1 else f"no dead letters of {len(ids)} ids: {named}"
