"""The command `reembed`: SOURCE to SINK in the foreground, or one of its subcommands."""

import os
import re
import shlex
import signal
from contextlib import closing
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from console import reembed_jobs, views
from console.pools import require_pool
from console.progress import run_progress
from console.reembed_switch import rollback, switch
from producer import ConfigurationError, HeadraceError, InvalidRequest, Producer, ProducerSettings
from producer.bulk.order import Order
from producer.bulk.pipeline import Outcome, look
from producer.bulk.runs import open_ends, run_order, state_directory
from producer.bulk.survey import survey
from producer.bulk.urls import STANDARD
from producer.core import DEFAULT_WINDOW
from producer.errors import RedisUnavailable, ResultTimeout, StoreUnavailable, VerificationFailed
from producer.settings import StoreSettings, load
from producer.templates import TextTemplate
from workers.options import HELP_FLAGS, Command, Group, Interrupted, settings_options

_ARGUMENTS = "headrace.reembed.arguments"
_FOR_RUNS = {"redis_url", "redis_user", "embed_model", "namespace", "max_text_bytes", "bulk_timeout_s"}
_PASSWORD = re.compile(r"(://[^:@/]*:).*@|([?&]password=)[^&]*")
_RESUMABLE = (RedisUnavailable, StoreUnavailable, ResultTimeout)


@click.command(
    cls=Command, epilog="Example: headrace reembed contacts.jsonl vectors.jsonl --text '{name} - {notes[:500]}'"
)
@click.argument("source")
@click.argument("sink")
@click.option(
    "--text",
    "template",
    help="Template of the text: '{name} - {company} - {notes[:500]}'. [default: SOURCE's own, if a run filled it]",
)
@click.option("--field", "fields", multiple=True, help="Field that holds the text; several are joined. [default: text]")
@click.option("--id", "id_field", default="id", show_default=True, help="Field that holds the identity.")
@click.option("--kind", default="passage", show_default=True, metavar="query|passage", help="What the texts are.")
@click.option("--where", multiple=True, metavar="FIELD=VALUE", help="Take records with this value only; repeatable.")
@click.option("--limit", type=click.IntRange(min=1), help="Take so many records at most.")
@click.option(
    "--window", type=click.IntRange(min=1), default=DEFAULT_WINDOW, show_default=True, help="Rows in flight at most."
)
@click.option("--max-failures", type=click.IntRange(min=0), help="Rows that may fail. [default: a tenth of those read]")
@click.option("--resume", is_flag=True, help="Go on where the same command was stopped.")
@click.option("--overwrite", is_flag=True, help="Begin anew, and replace SINK if it exists.")
@click.option("--dry-run", is_flag=True, help="Show what it would take and a sample of texts; write nothing.")
@click.option("--detach", is_flag=True, help="Make it a job for `headrace reembed worker`, and do not wait.")
@settings_options(
    ProducerSettings,
    leave_out={field for field in ProducerSettings.__dataclass_fields__ if field not in _FOR_RUNS},
    rename={"embed_model": "--model"},
)
@settings_options(StoreSettings, leave_out={"qdrant_url"})
def run(
    source: str,
    sink: str,
    *,
    template: str | None,
    fields: tuple[str, ...],
    dry_run: bool,
    detach: bool,
    state_dir: str | None,
    where: tuple[str, ...],
    **flags: Any,
) -> None:
    """Embed every record of SOURCE into SINK.

    Each is a JSON Lines file (also .gz, or "-" for a standard stream), a .parquet file, or a collection of Qdrant's:
    qdrant://host:6333/collection, qdrant+https://host/collection, qdrant+local:FOLDER#collection. Rows travel on the
    bulk lane; what is cached does not travel. Stopped at any moment, the same command with --resume goes on.
    """
    chosen = {name: flags.pop(name) for name in list(flags) if name in Order.__dataclass_fields__}
    order = Order(source=source, sink=sink, template=_template(template, fields), where=where, **chosen)
    settings = load(ProducerSettings, os.environ, **flags)
    store = load(StoreSettings, os.environ, state_dir=state_dir)
    if detach and dry_run:
        raise ConfigurationError("--detach and --dry-run do not go together: pass one of them")
    if detach and state_dir:
        raise ConfigurationError("a detached run keeps its state where its worker does: pass --state-dir to that")
    if dry_run:
        _show_what_it_takes(order, settings, store)
        return
    with Producer(settings) as producer:
        require_pool(producer, "embed")
    if detach:
        click.echo(reembed_jobs.detached_line(reembed_jobs.detach(order, settings)))
        return
    _run_here(order, settings, store)


class _Reembed(Group):
    """A group whose subcommands have names; any other first word is the SOURCE of a run."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            near = get_close_matches(args[0], self.commands, n=1)
            if near and not Path(args[0]).exists():
                raise click.UsageError(f"No such command {args[0]!r}. Did you mean {near[0]!r}?", ctx)
            ctx.meta[_ARGUMENTS] = args
            return []
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        if _ARGUMENTS not in ctx.meta:
            return super().invoke(ctx)
        with run.make_context(ctx.info_name, list(ctx.meta[_ARGUMENTS]), parent=ctx.parent) as context:
            return run.invoke(context)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = ctx.help_option_names
        context = click.Context(run, info_name=ctx.info_name, parent=ctx.parent, help_option_names=names)
        run.format_usage(context, formatter)
        run.format_help_text(context, formatter)
        run.format_options(context, formatter)
        self.format_commands(ctx, formatter)
        run.format_epilog(context, formatter)


@click.group(
    "reembed",
    cls=_Reembed,
    context_settings=HELP_FLAGS,
    epilog=run.epilog,
    short_help="Embed a whole collection anew.",
)
def main() -> None:
    """Embed a whole collection anew, or look after runs and aliases."""


def _template(template: str | None, fields: tuple[str, ...]) -> str:
    if template is not None and fields:
        raise ConfigurationError("--text and --field say the same thing twice: pass one of them")
    if template is None:
        return TextTemplate.of_fields(fields).pattern if fields else ""
    return TextTemplate(template).pattern


def _show_what_it_takes(order: Order, settings: ProducerSettings, store: StoreSettings) -> None:
    source, sink = open_ends(order, store)
    with Producer(settings) as producer, closing(source):
        if producer.queue_state("embed").card:  # it says how long vectors are, which a sink wants to know
            look(producer, source, sink, order, state_dir=state_directory(store))
        found = survey(producer, source, order)
    views.show(views.survey_table(found))
    if found.rejected and not found.rows:
        raise InvalidRequest(f"every row would be rejected: {found.first_reject}")


def _run_here(order: Order, settings: ProducerSettings, store: StoreSettings) -> None:
    """Run in the foreground; however it ends before its time, say how to go on."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, at the last checkpoint
    resume = "what is computed is cached: run it again" if order.sink == STANDARD else f"go on with: {_command_line()}"
    try:
        with run_progress() as on_progress:
            outcome = run_order(order, settings, store, on_progress=on_progress)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {resume}") from None
    except _RESUMABLE as error:
        raise _with_advice(error, resume) from error
    except VerificationFailed as error:
        raise _with_advice(error, "nothing shows it to anyone: begin anew with --overwrite") from error
    for line in summary(order, outcome):
        click.echo(line, err=True)


def _with_advice(error: HeadraceError, advice: str) -> HeadraceError:
    return HeadraceError(f"{error}; {advice}", code=error.code)


def _command_line() -> str:
    """The command that was called, with --resume, and without the passwords of its URLs: it may end up in a log."""
    words = [word for word in click.get_current_context().meta[_ARGUMENTS] if word not in ("--overwrite", "--resume")]
    return shlex.join(["headrace", "reembed", *map(_without_password, words), "--resume"])


def _without_password(word: str) -> str:
    return _PASSWORD.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", word)


def summary(order: Order, outcome: Outcome) -> list[str]:
    """What a run has done, in a line or two."""
    rows = f"{views.counted(outcome.rows, 'row')} written to {views.stream_name(order.sink, 'output')}"
    if outcome.resumed_rows:
        rows += f" ({outcome.resumed_rows:,} of them before)"
    if outcome.elapsed_s:
        rows += f" in {views.duration(outcome.elapsed_s)}"
    rows += f" (model {outcome.model}, text {outcome.template})"
    lines = [f"{rows}; checked: {outcome.checked}" if outcome.checked else rows]
    if outcome.rejected:
        lines.append(f"{views.counted(outcome.rejected, 'row')} rejected, with the reasons: {outcome.rejects_path}")
    return lines


for command in (switch, rollback, *reembed_jobs.commands):
    main.add_command(command)
