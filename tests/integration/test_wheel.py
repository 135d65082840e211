"""The built wheel: what it holds, and that it works in an environment of its own, far from the repository."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.integration.harness.commands import await_up
from tests.integration.harness.processes import ROOT, Program

_LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests", "docs")
_LONGEST_S = 600.0

CONTENTS = {
    "cli.py",
    "producer/__init__.py",
    "producer/py.typed",
    "producer/wire/codec.py",
    "producer/bulk/pipeline.py",
    "workers/embed_worker.py",
    "workers/py.typed",
    "workers/models/offline.py",
    "console/up.py",
    "console/py.typed",
    "console/records.jsonl",
    "console/queries.jsonl",
    "console/judged/corpus.jsonl",
    "console/judged/queries.jsonl",
    "console/judged/qrels/test.tsv",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: setuptools leaves its traces in the folder it builds from."""
    copy = tmp_path_factory.mktemp("source") / "headrace"
    shutil.copytree(ROOT, copy, ignore=_LEFT_OUT)
    output = tmp_path_factory.mktemp("wheel")
    _run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(output), str(copy)], output)
    (built,) = output.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a fresh environment with the wheel and its extra `local`."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True, symlinks=True)
    constraints = str(ROOT / "constraints.txt")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--constraint", constraints, f"{wheel}[local]"], folder)
    return folder / "bin"


def test_the_wheel_holds_everything_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    scripts = {path.relative_to(ROOT).as_posix() for path in (ROOT / "producer").rglob("*.lua")}
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("producer", "workers", "console")
        for path in (ROOT / package).rglob("*.py")
    }
    assert len(scripts) >= 3
    assert names >= CONTENTS | scripts | modules
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "docs/"))]


def test_the_installed_command_tells_its_version(environment: Path, tmp_path: Path, wheel: Path) -> None:
    version = wheel.name.split("-")[1]
    assert version in _run([str(environment / "headrace"), "--version"], tmp_path)


def test_the_installed_producer_loads_no_model_library(environment: Path, tmp_path: Path) -> None:
    code = "import producer, sys; print(producer.__file__, *sys.modules)"
    place, *modules = _run([str(environment / "python"), "-c", code], tmp_path).split()
    assert Path(place).is_relative_to(environment.parent), "not the repository's"
    assert not {"fastembed", "onnxruntime", "tokenizers", "click", "rich", "workers", "console"} & set(modules)


def test_the_installed_command_serves(environment: Path, tmp_path: Path) -> None:
    headrace = str(environment / "headrace")
    environ = _environ(HEADRACE_CACHE_DIR=str(tmp_path / "models"))
    up = Program([headrace, "up", "--offline", "--port", "0"], environ, tmp_path / "up", directory=tmp_path)
    try:
        exports = await_up(up)
        printed = _run([headrace, "enqueue", "embed", "--json", "where can I swim?"], tmp_path, **exports)
        ranked = _run([headrace, "enqueue", "rerank", "--json", "swim", "a form", "a lake"], tmp_path, **exports)
    finally:
        up.stop()
    assert json.loads(printed)["dimension"] == 384
    assert json.loads(ranked)["count"] == 2
    assert up.wait() == 0


def _run(command: list[str], folder: Path, **environ: str) -> str:
    """Run a command in a folder that is not the repository's; return what it prints."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=_environ(**environ),
        text=True,
        capture_output=True,
        timeout=_LONGEST_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _environ(**more: str) -> dict[str, str]:
    """The environment without anything of the repository or the developer's settings."""
    left_out = ("HEADRACE_", "REDIS_", "PYTHON")
    return {**{name: value for name, value in os.environ.items() if not name.startswith(left_out)}, **more}
