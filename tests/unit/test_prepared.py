"""Weights prepared for sharing: the same results, made once, and the plain way where they cannot be made."""

import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from workers.models import offline, prepared
from workers.models.fastembed_models import FastembedEmbedder, load_embedder, load_reranker
from workers.models.prepared import ModelFiles, prepared_directory
from workers.settings import WorkerSettings

TEXTS = ["river", "the mill wheel turned all night", "a quiet lake " * 40]
MAPPED = "onnx_data"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with the offline embedder in it, and prepared weights of it."""
    folder = tmp_path_factory.mktemp("prepared")
    load(folder)
    return folder


def load(cache: Path, prepare_bytes: float = 1) -> FastembedEmbedder:
    return load_embedder("offline", cache_dir=cache, threads=1, prepare_bytes=prepare_bytes)


def files_of(cache: Path) -> ModelFiles:
    return ModelFiles(directory=offline.embedder_directory(cache), model_file=offline.MODEL_FILE)


def copies(cache: Path) -> list[Path]:
    return sorted(path for path in (cache / "prepared").iterdir() if path.is_dir())


def refuse(*_arguments: Any) -> Any:
    raise OSError(28, "No space left on device")


def test_the_vectors_are_the_same_to_the_bit_and_so_is_the_fingerprint(cache: Path) -> None:
    plain, shared = load(cache, float("inf")), load(cache)

    assert np.array_equal(plain.embed(TEXTS), shared.embed(TEXTS))
    assert plain.weights_sha256() == shared.weights_sha256()
    assert (plain.dimension, plain.max_tokens) == (shared.dimension, shared.max_tokens)


def test_the_weights_are_mapped(cache: Path) -> None:
    model = load(cache)

    assert MAPPED in Path("/proc/self/maps").read_text()
    assert model.dimension == offline.EMBEDDER_DIMENSIONS


def test_a_reranker_scores_the_same(tmp_path: Path) -> None:
    pairs = [("where can I swim?", text) for text in TEXTS]
    plain = load_reranker("offline", cache_dir=tmp_path, threads=1)
    shared = load_reranker("offline", cache_dir=tmp_path, threads=1, prepare_bytes=1)

    assert len(copies(tmp_path)) == 1
    assert plain.score(pairs) == shared.score(pairs)


def test_it_is_made_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = copies(cache)
    monkeypatch.setattr(prepared, "_write", refuse)

    assert [prepared_directory(files_of(cache), cache, threads=1)] == before


def test_a_small_model_is_loaded_as_it_is(tmp_path: Path) -> None:
    load(tmp_path, prepared.PREPARE_BYTES)

    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize("changed", ["prepared._cpu", "onnxruntime.__version__"])
def test_another_cpu_or_onnxruntime_has_a_copy_of_its_own(
    cache: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    made: list[Path] = []
    monkeypatch.setattr(prepared, "_prepare", lambda _files, directory, _threads: made.append(directory))
    if changed == "prepared._cpu":
        monkeypatch.setattr(prepared, "_cpu", lambda: "another")
    else:
        monkeypatch.setattr(onnxruntime, "__version__", "0")

    prepared_directory(files_of(cache), cache, threads=1)

    assert len(made) == 1
    assert made[0] not in copies(cache)


@pytest.mark.parametrize("where", ["_write", "_make_room", "_check_same"])
def test_what_cannot_be_written_is_loaded_the_plain_way(
    cache: Path, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(cache / "offline", tmp_path / "offline")
    monkeypatch.setattr(prepared, where, refuse)
    with caplog.at_level(logging.WARNING, "headrace.worker"):
        model = load(tmp_path)

    assert "No space left" in caplog.text
    assert copies(tmp_path) == [], "nothing half-made is left"
    assert model.embed(["river"]).shape == (1, offline.EMBEDDER_DIMENSIONS)


def test_a_failure_is_not_repeated_at_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[Path] = []
    ready = prepared._prepare

    def fail(_files: ModelFiles, directory: Path, _threads: int) -> None:
        tried.append(directory)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepared, "_prepare", fail)
    assert [prepared_directory(files_of(cache), tmp_path, threads=1) for _ in range(4)] == [None] * 4
    assert len(tried) == 1
    assert "it failed before" in caplog.text

    (failed,) = (tmp_path / "prepared").glob("*.failed")
    os.utime(failed, (0, 0))
    monkeypatch.setattr(prepared, "_prepare", ready)
    assert prepared_directory(files_of(cache), tmp_path, threads=1) == tried[0]
    assert not failed.exists()


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(cache / "offline", tmp_path / "offline")
    (tmp_path / "prepared").write_text("in the way, whoever runs this test")
    with caplog.at_level(logging.WARNING, "headrace.worker"):
        assert prepared_directory(files_of(tmp_path), tmp_path, threads=1) is None

    assert "every process will hold its own" in caplog.text


def test_other_results_are_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = prepared._write

    class Other:
        def __init__(self, session: Any) -> None:
            self.get_inputs = session.get_inputs
            self.run: Callable[..., Any] = lambda names, feed: [found + 1 for found in session.run(names, feed)]

    monkeypatch.setattr(prepared, "_write", lambda *arguments: Other(source(*arguments)))
    monkeypatch.setattr(prepared, "_cpu", lambda: "one that computes otherwise")
    before = copies(cache)

    assert prepared_directory(files_of(cache), cache, threads=1) is None
    assert copies(cache) == before


def test_a_damaged_copy_is_reported_and_passed_over(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(cache, tmp_path / "cache")
    (data,) = (tmp_path / "cache" / "prepared").rglob(f"*{MAPPED}")
    os.truncate(data, 4096)
    with caplog.at_level(logging.WARNING, "headrace.worker"):
        model = load(tmp_path / "cache")

    assert "delete it" in caplog.text
    assert model.embed(["river"]).shape == (1, offline.EMBEDDER_DIMENSIONS)


def test_what_is_long_unused_or_abandoned_goes(cache: Path, tmp_path: Path) -> None:
    for name in ("unused", "used", ".unfinished-1", ".unfinished-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / prepared._DONE).touch()
    os.utime(tmp_path / "unused" / prepared._DONE, (0, 0))
    os.utime(tmp_path / ".unfinished-1", (0, 0))

    prepared._make_room(tmp_path, 0)

    assert sorted(path.name for path in tmp_path.iterdir()) == [".unfinished-2", "used"]


def test_a_full_disk_is_noticed_beforehand(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="MiB of disk are wanted"):
        prepared._make_room(tmp_path, 1 << 60)


def test_zero_means_never() -> None:
    assert WorkerSettings(prepare_mb=0).prepare_bytes == float("inf")
    assert WorkerSettings().prepare_bytes == prepared.PREPARE_BYTES


def test_of_those_that_start_together_one_makes_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def prepare(_files: ModelFiles, directory: Path, _threads: int) -> None:
        made.append(directory)
        directory.mkdir()
        (directory / prepared._DONE).touch()

    monkeypatch.setattr(prepared, "_prepare", prepare)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: prepared_directory(files_of(cache), tmp_path, threads=1), range(4)))

    assert len(made) == 1
    assert found == made * 4
