"""Secrets among the settings: from a variable or a file, never on a command line, in a repr or in an error."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from producer import ConfigurationError, ProducerSettings
from producer.settings import load, setting
from workers.options import settings_options
from workers.settings import WorkerSettings

BOTH = [ProducerSettings, WorkerSettings]
VARIABLE = "HEADRACE_REDIS_PASSWORD"


@dataclass(frozen=True, kw_only=True)
class Vault:
    """Settings with another secret: nothing is made for the password alone."""

    name: str = setting("vault", "VAULT_NAME", "A name.")
    key: str = setting("", "VAULT_KEY", "A key.", secret=True)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    return tmp_path / "secret"


@pytest.mark.parametrize("cls", BOTH)
def test_a_secret_comes_from_its_variable(cls: type[ProducerSettings]) -> None:
    assert load(cls, {VARIABLE: "pa55word", "HEADRACE_REDIS_USER": "app"}).redis_password == "pa55word"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("pa55word", "pa55word"),
        ("pa55word\n", "pa55word"),
        ("pa55word\r\n", "pa55word"),
        (" pa55 word \n", " pa55 word "),
        ("pässwörd\n", "pässwörd"),
    ],
)
def test_a_secret_comes_from_a_file_without_the_line_end(secret_file: Path, content: str, value: str) -> None:
    secret_file.write_bytes(content.encode())

    assert load(ProducerSettings, {f"{VARIABLE}_FILE": str(secret_file)}).redis_password == value
    assert load(Vault, {"VAULT_KEY_FILE": str(secret_file)}) == Vault(key=value)


def test_empty_variables_count_as_none() -> None:
    assert load(ProducerSettings, {VARIABLE: "", f"{VARIABLE}_FILE": ""}) == ProducerSettings()


def test_a_value_that_is_given_beats_variable_and_file() -> None:
    environ = {VARIABLE: "from-env", f"{VARIABLE}_FILE": "/nowhere"}

    assert load(ProducerSettings, environ, redis_password="given").redis_password == "given"
    assert load(ProducerSettings, environ, redis_password="").redis_password == ""


def test_both_are_one_too_many(secret_file: Path) -> None:
    secret_file.write_text("pa55word")

    _check_refusal({VARIABLE: "pa55word", f"{VARIABLE}_FILE": str(secret_file)}, "both set")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "empty"),
        (b"\n", "empty"),
        (b"pa55\xff\xfe", "UTF-8"),
    ],
)
def test_a_file_without_a_secret_is_refused(secret_file: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        secret_file.write_bytes(content)

    _check_refusal({f"{VARIABLE}_FILE": str(secret_file)}, reason)


def test_a_folder_is_no_secret(tmp_path: Path) -> None:
    _check_refusal({f"{VARIABLE}_FILE": str(tmp_path)}, "cannot be read")


def test_a_password_where_a_path_belongs_is_not_shown() -> None:
    _check_refusal({f"{VARIABLE}_FILE": "pa55word"}, "cannot be read")


@pytest.mark.parametrize("cls", [*BOTH, Vault])
def test_secrets_are_no_part_of_the_repr_and_have_no_flag(cls: type) -> None:
    secrets = [field for field in dataclasses.fields(cls) if field.metadata["secret"]]
    assert secrets
    settings = cls(**{field.name: "pa55word of many characters" for field in secrets})

    @click.command()
    @settings_options(cls)
    def command(**_: object) -> None:
        """Do nothing."""

    assert "pa55" not in repr(settings)
    flags = CliRunner().invoke(command, ["--help"]).output
    assert not [field.name for field in secrets if field.name.replace("_", "-") in flags]


def test_the_url_is_no_part_of_the_repr_and_has_a_flag() -> None:
    @click.command()
    @settings_options(ProducerSettings)
    def command(**_: object) -> None:
        """Do nothing."""

    assert "pa55" not in repr(ProducerSettings(redis_url="redis://:pa55word@h"))
    assert "--redis-url" in CliRunner().invoke(command, ["--help"]).output


@pytest.mark.parametrize("cls", [*BOTH, Vault])
def test_the_help_of_a_secret_names_the_variable_of_its_file(cls: type) -> None:
    for field in dataclasses.fields(cls):
        named = f"{field.metadata['env']}_FILE names a file with it." in field.metadata["help"]
        assert named == field.metadata["secret"]


def test_a_secret_of_another_type_is_not_shown() -> None:
    with pytest.raises(ConfigurationError, match=VARIABLE) as caught:
        ProducerSettings(redis_password=55555)  # type: ignore[arg-type]

    assert "55555" not in str(caught.value)


def _check_refusal(environ: dict[str, str], reason: str) -> None:
    """Check the one line: it names the variable and the reason, and shows neither the secret nor a traceback of it."""
    with pytest.raises(ConfigurationError, match=reason) as caught:
        load(ProducerSettings, environ)

    text = str(caught.value)
    assert f"{VARIABLE}_FILE" in text
    assert "\n" not in text
    assert "pa55" not in text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
