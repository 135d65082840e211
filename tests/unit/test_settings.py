"""Settings of a producer: flag, then environment, then default; and values that cannot work."""

import dataclasses
import math
from typing import Any

import pytest

from producer import ConfigurationError, Producer, ProducerSettings
from producer.settings import load
from producer.wire.models import DEFAULT_EMBED_MODEL

DEFAULTS = ProducerSettings()


def test_the_defaults_are_those_of_the_design() -> None:
    assert DEFAULTS.redis_url == "redis://localhost:6379/0"
    assert (DEFAULTS.embed_model, DEFAULTS.rerank_model) == (
        "intfloat/multilingual-e5-large",
        "BAAI/bge-reranker-base",
    )
    assert (DEFAULTS.namespace, DEFAULTS.max_text_bytes) == ("", 64 * 1024)


def test_a_flag_beats_the_environment_which_beats_the_default() -> None:
    environ = {
        "HEADRACE_EMBED_MODEL": "from-env",
        "HEADRACE_TIMEOUT_S": "2.5",
        "HEADRACE_LANE_LIMIT": "7",
        "OTHER": "x",
    }

    settings = load(ProducerSettings, environ, embed_model="from-flag", timeout_s=None)

    assert (settings.embed_model, settings.timeout_s, settings.lane_limit) == ("from-flag", 2.5, 7)
    assert settings.rerank_model == DEFAULTS.rerank_model


def test_an_empty_variable_counts_as_none() -> None:
    assert load(ProducerSettings, {"HEADRACE_EMBED_MODEL": "", "HEADRACE_TIMEOUT_S": ""}) == DEFAULTS


def test_from_env_reads_what_it_is_given_or_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_NAMESPACE", "blue")

    with Producer.from_env() as one, Producer.from_env({"HEADRACE_NAMESPACE": "green"}) as other:
        assert (one.settings.namespace, other.settings.namespace) == ("blue", "green")
        assert one.settings.embed_model == DEFAULT_EMBED_MODEL


def test_every_field_has_a_variable_of_its_own_and_a_help_line() -> None:
    fields = dataclasses.fields(ProducerSettings)

    assert len({field.metadata["env"] for field in fields}) == len(fields)
    assert all(field.metadata["help"].endswith(".") for field in fields)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("HEADRACE_TIMEOUT_S", "soon"),
        ("HEADRACE_TIMEOUT_S", "nan"),
        ("HEADRACE_TIMEOUT_S", "inf"),
        ("HEADRACE_TIMEOUT_S", "0"),
        ("HEADRACE_TIMEOUT_S", "-1"),
        ("HEADRACE_BULK_TIMEOUT_S", "0"),
        ("HEADRACE_BULK_TIMEOUT_S", "inf"),
        ("HEADRACE_MAX_TEXT_BYTES", "0"),
        ("HEADRACE_MAX_TEXT_BYTES", "1.5"),
        ("HEADRACE_MAX_TEXT_BYTES", "64K"),
        ("HEADRACE_LANE_LIMIT", "0"),
        ("HEADRACE_LANE_LIMIT", "many"),
        ("HEADRACE_NAMESPACE", "a{b}"),
        ("HEADRACE_NAMESPACE", "a b"),
        ("HEADRACE_NAMESPACE", "a*"),
        ("HEADRACE_NAMESPACE", "a[b"),
        ("HEADRACE_NAMESPACE", "a?"),
        ("HEADRACE_NAMESPACE", "a\n"),
    ],
)
def test_variables_that_cannot_work_are_named_in_the_error(variable: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        load(ProducerSettings, {variable: text})


@pytest.mark.parametrize("namespace", ["", "a", "team-a:blue_2.0"])
def test_good_namespaces_pass(namespace: str) -> None:
    assert ProducerSettings(namespace=namespace).namespace == namespace


@pytest.mark.parametrize(
    "settings",
    [
        {"timeout_s": 0},
        {"timeout_s": math.nan},
        {"timeout_s": math.inf},
        {"timeout_s": "5"},
        {"timeout_s": None},
        {"max_text_bytes": -1},
        {"max_text_bytes": 1.5},
        {"lane_limit": "many"},
        {"namespace": None},
        {"namespace": b"blue"},
        {"embed_model": ""},
        {"embed_model": None},
        {"rerank_model": "a\nb"},
    ],
    ids=str,
)
def test_keywords_that_cannot_work_are_configuration_errors(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Producer.from_url("redis://localhost", **settings)


def test_a_keyword_that_does_not_exist_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="colour"):
        Producer.from_url("redis://localhost", colour="blue")
