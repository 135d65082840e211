"""Makes click options out of a settings class, so that flag, environment variable, default and help are told once."""

import dataclasses
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import click

from producer.errors import ConfigurationError, HeadraceError
from workers.stopping import EXIT_CONFIGURATION

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

HELP_FLAGS = {"help_option_names": ["-h", "--help"]}
"""Settings of a click context."""


class OneLineError(click.ClickException):
    """A failure as users see it: one line on standard error, and a non-zero exit code."""

    def show(self, file: Any = None) -> None:
        click.echo(f"headrace: {' '.join(self.message.split())}", err=True)


class Interrupted(OneLineError):
    """Ended by Ctrl-C or SIGTERM; the exit code is the shell's for that."""

    exit_code = 130


class Command(click.Command):
    """A command whose Headrace errors become one line, unless the program was started with --debug."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Not left to the group: a command may run alone, and click keeps the flags of its first call.
        super().__init__(*args, **{"context_settings": HELP_FLAGS, **kwargs})

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here, where a full disk can still be told in one line
        except HeadraceError as error:
            if ctx.find_root().params.get("debug"):
                raise
            raise self.failure(error) from error
        except BrokenPipeError:
            raise  # whoever read the output has seen enough; click ends quietly
        except OSError as error:
            if ctx.find_root().params.get("debug"):
                raise
            raise OneLineError(f"the output cannot be written: {error.strerror or error}") from error
        return result

    def failure(self, error: HeadraceError) -> OneLineError:
        """How an error is shown, and the exit code."""
        return OneLineError(str(error))


class CannotStart(OneLineError):
    """A pool that is configured in a way that cannot work; a process manager need not try again."""

    exit_code = EXIT_CONFIGURATION


class PoolCommand(Command):
    """A command that runs a pool."""

    def failure(self, error: HeadraceError) -> OneLineError:
        return CannotStart(str(error)) if isinstance(error, ConfigurationError) else super().failure(error)


class Group(click.Group):
    """A group whose usage errors are one line, too."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.UsageError as error:
            hint = f" (see: {error.ctx.command_path} --help)" if error.ctx else ""
            OneLineError(f"{error.format_message()}{hint}").show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("headrace: interrupted", err=True)
            sys.exit(Interrupted.exit_code)


def settings_options(
    cls: type, *, leave_out: Collection[str] = (), rename: Mapping[str, str] | None = None
) -> Callable[[Decorated], Decorated]:
    """A decorator that adds an option for each field but secrets; `rename` maps a field to its flag ("--model")."""

    def decorate(command: Decorated) -> Decorated:
        for field in reversed(dataclasses.fields(cls)):
            if field.name not in leave_out and not field.metadata["secret"]:
                command = _option(field, (rename or {}).get(field.name, ""))(command)
        return command

    return decorate


def _option(field: Any, flag: str) -> Callable[[Decorated], Decorated]:
    name = flag or "--" + field.name.replace("_", "-")
    default, env = field.default, field.metadata["env"]
    told = str(default).lower() if isinstance(default, bool) else "none" if default == "" else default
    shown = f" [{env}; default: {told}]"
    if isinstance(default, bool):
        name = f"{name}/--no-{name.removeprefix('--')}"
        return click.option(name, field.name, default=None, help=field.metadata["help"] + shown)
    return click.option(
        name,
        field.name,
        type=type(default),
        default=None,
        metavar=_metavar(field.name, default),
        help=field.metadata["help"] + shown,
    )


def _metavar(name: str, default: Any) -> str:
    if isinstance(default, float):
        return "SECONDS" if name.endswith("_s") else "SHARE"
    return "N" if isinstance(default, int) else "TEXT"
