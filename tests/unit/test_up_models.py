"""What `headrace up` tells another terminal to set, so that producers there ask for the models that it serves."""

from pathlib import Path

import pytest

from console.up import _models_to_name
from producer.settings import ProducerSettings


def test_the_default_models_need_not_be_named() -> None:
    assert _models_to_name(ProducerSettings()) == {}


def test_other_models_are_named() -> None:
    assert _models_to_name(ProducerSettings(embed_model="offline@2", rerank_model="offline")) == {
        "HEADRACE_EMBED_MODEL": "offline@2",
        "HEADRACE_RERANK_MODEL": "offline",
    }


def test_a_folder_is_named_so_that_any_folder_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert _models_to_name(ProducerSettings(embed_model="./int8")) == {"HEADRACE_EMBED_MODEL": str(tmp_path / "int8")}
