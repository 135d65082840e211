"""Names that are no model, and folders that hold none: one line that says what is wrong."""

from pathlib import Path

import pytest

from producer.errors import ConfigurationError, UnknownModel
from workers.models.fastembed_models import load_embedder


def load(name: str, tmp_path: Path) -> object:
    return load_embedder(name, cache_dir=tmp_path, threads=1)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^there is no model directory .*/nowhere$"):
        load(f"{tmp_path}/nowhere", tmp_path)


def test_a_folder_that_lacks_files(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()

    with pytest.raises(ConfigurationError, match=r"lacks tokenizer.json, tokenizer_config.json"):
        load(str(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("name", "meant"), [("offlin", "offline"), ("intfloat/multilingual-e5-larg", "intfloat/multilingual-e5-large")]
)
def test_a_name_that_is_nearly_one(tmp_path: Path, name: str, meant: str) -> None:
    with pytest.raises(UnknownModel, match=rf"did you mean {meant}\b"):
        load(name, tmp_path)
