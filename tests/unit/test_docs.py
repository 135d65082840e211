"""The documents tell the truth: the settings table, the error table and the commands are complete."""

import dataclasses
import re
from pathlib import Path

import click
import pytest

import cli
from producer import errors
from producer.settings import ProducerSettings, StoreSettings
from workers.settings import WorkerSettings

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _settings() -> dict[str, tuple[object, str, str]]:
    found: dict[str, tuple[object, str, str]] = {}
    for cls, user in ((ProducerSettings, "producer"), (WorkerSettings, "worker"), (StoreSettings, "store")):
        for field in dataclasses.fields(cls):
            env = field.metadata["env"]
            users = f"{found[env][2]}, {user}" if env in found else user
            found[env] = (field.default, field.metadata["help"], users)
    return found


def _commands(group: click.Group, path: str = "headrace") -> list[tuple[str, click.Command]]:
    found = []
    for name, command in group.commands.items():
        nested = _commands(command, f"{path} {name}") if isinstance(command, click.Group) else []
        found += nested or [(f"{path} {name}", command)]
    return found


COMMANDS = _commands(cli.main)


@pytest.mark.parametrize("env", sorted(_settings()))
def test_the_settings_table_has_every_setting_as_it_is(env: str) -> None:
    default, help_text, users = _settings()[env]
    shown = str(default).lower() if isinstance(default, bool) else str(default)
    row = f"| `{env}` | {f'`{shown}`' if default != '' else 'none'} | {users} | {help_text} |"

    assert row in README


def test_the_settings_table_has_nothing_else() -> None:
    table = re.findall(r"^\| `([A-Z_]+)` \|", README, flags=re.MULTILINE)

    assert sorted(table) == sorted(_settings())


def test_the_error_table_has_every_code_of_the_source() -> None:
    rows = re.findall(r"^\| `\w+` \| ([^|]+) \|", (ROOT / "docs" / "errors.md").read_text(), flags=re.MULTILINE)
    table = {code for row in rows for code in re.findall(r"`(\w+)`", row)}
    sources = [path for folder in ("producer", "workers") for path in (ROOT / folder).rglob("*.py")]
    written = {code for path in sources for code in re.findall(r'\bcode="([a-z_]+)"', path.read_text())}
    classes = {getattr(errors, name).code for name in errors.__all__} - {"error", "invalid_text", "row_failed"}

    assert written | classes <= table


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[path for path, _ in COMMANDS])
def test_every_command_has_help_and_an_example_that_calls_it(path: str, command: click.Command) -> None:
    assert command.help
    assert (command.epilog or "").startswith(f"Example: {path}")


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=[path for path, _ in COMMANDS])
def test_every_command_has_the_same_help_flags_alone(path: str, command: click.Command) -> None:
    assert command.make_context(path, ["--"], resilient_parsing=True).help_option_names == ["-h", "--help"]


@pytest.mark.parametrize("path", [path for path, _ in COMMANDS])
def test_the_readme_lists_every_command(path: str) -> None:
    family = path.replace("worker embed", "worker embed\\|rerank").replace("worker rerank", "worker embed\\|rerank")

    assert f"`{family}" in README


RELIABILITY = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
PITFALLS = RELIABILITY.partition("## Known pitfalls of streams")[2].partition("\n## ")[0]


@pytest.mark.parametrize("reference", sorted(set(re.findall(r"`(tests/[^`]+)`", RELIABILITY))))
def test_what_reliability_is_held_by_exists(reference: str) -> None:
    path, _, name = reference.partition("::")

    source = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^(async )?def {name}\(", source, re.MULTILINE) if name else "def test_" in source


def test_no_document_has_a_gap_left_to_fill() -> None:
    for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        assert not re.search(r"@@|TODO|FIXME|XXX", path.read_text(encoding="utf-8")), path


def test_every_pitfall_is_held_by_a_test_or_does_not_apply() -> None:
    rows = [row for row in PITFALLS.splitlines() if row.startswith("| ")][1:]

    assert len(rows) == 18
    assert all("`tests/" in row for row in rows)
