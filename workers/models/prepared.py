"""Rewrites a big model once per machine, so that all the processes of its pools share its weights.

onnxruntime maps weights from an external file, but rearranges those of matrix products into memory of each process's
own ("prepacking"): 1.2 GB of multilingual-e5-large. It can write the rearranged weights beside the original ones; a
session on that file maps them, too, and every process sees the same pages. The results are the same to the bit, which
is checked once. The layout belongs to the onnxruntime and the CPU that wrote it; both are part of the folder's name.
"""

import fcntl
import hashlib
import logging
import os
import platform
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

logger = logging.getLogger("headrace.worker")

PREPARE_BYTES = 500 << 20
"""Weights of so many bytes or more are worth a second copy on disk."""

_VERSION = "1"
_DONE = "prepared.ok"
_UNFINISHED = ".unfinished-"
_ABANDONED_AFTER_S = 3600.0
_RETRY_AFTER_S = 3600.0
_UNUSED_AFTER_S = 30 * 86400.0
_LARGEST_SMALL_FILE_BYTES = 64 << 20
_LEAST_EXTERNAL_BYTES = 1024
_MARGIN_BYTES = 256 << 20


class _NotTheSameError(Exception):
    """The rewritten model gives other results than its source."""


class _FailedBeforeError(Exception):
    """Another process tried in vain."""


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """A model as fastembed found it."""

    directory: Path
    model_file: str
    """Where the graph is, relative to the directory."""

    @property
    def graph(self) -> Path:
        return self.directory / self.model_file

    @property
    def weights(self) -> list[Path]:
        """The graph and its external data, which by custom begins with the graph's name."""
        return sorted(self.graph.parent.glob(f"{self.graph.name}*"))

    @property
    def weights_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.weights)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over the weights (with their external data) and the tokenizer."""
        hasher = hashlib.sha256()
        for file in [*self.weights, self.directory / "tokenizer.json"]:
            with file.open("rb") as stream:
                hasher.update(hashlib.file_digest(stream, "sha256").digest())
        return hasher.hexdigest()


def prepared_directory(files: ModelFiles, cache_dir: Path, *, threads: int) -> Path | None:
    """Return a directory with the same model, its weights ready to be mapped; made in the cache folder at first.

    Of processes that start together one makes it and the others wait. None where it cannot be made, which is logged:
    the folder is read-only, the disk full, or the model one that onnxruntime does not write.
    """
    identity = "\n".join((_VERSION, files.sha256, files.model_file, onnxruntime.__version__, _cpu()))
    directory = cache_dir / "prepared" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    try:
        if not _is_usable(directory):
            directory.parent.mkdir(parents=True, exist_ok=True)
            with _locked(directory.with_suffix(".lock")):
                if not _is_usable(directory):
                    _attempt(files, directory, threads)
    except Exception as error:  # noqa: BLE001 - onnxruntime's exceptions have no common class; the plain way is left
        reason = (str(error).strip().splitlines() or ["no details"])[0][:200]
        logger.warning(
            "the weights cannot be prepared in %s (%s: %s): every process will hold its own",
            directory.parent,
            type(error).__name__,
            reason,
        )
        return None
    return directory


def _is_usable(directory: Path) -> bool:
    """Whether it is there: it gets its name when it is complete. The time of its last use is noted."""
    done = directory / _DONE
    with suppress(OSError):
        os.utime(done)
    return done.is_file()


def _cpu() -> str:
    """What the CPU can do, as the kernel tells: onnxruntime chooses its kernels, and so the layout, by that."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()} {features}"


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # ends with the file, and with the process
        yield


def _attempt(files: ModelFiles, directory: Path, threads: int) -> None:
    """Make it, unless that failed a short while ago: the other processes of the pool need not fail one by one."""
    failed = directory.with_suffix(".failed")
    with suppress(FileNotFoundError):
        if time.time() - failed.stat().st_mtime < _RETRY_AFTER_S:
            raise _FailedBeforeError(f"it failed before; {failed} keeps it from being tried again for an hour")
    try:
        _make_room(directory.parent, files.weights_bytes)
        _prepare(files, directory, threads)
    except Exception:
        failed.touch()
        raise
    failed.unlink(missing_ok=True)


def _make_room(parent: Path, weights_bytes: int) -> None:
    """Delete what killed processes left and what nobody has loaded for a month; then see whether it is enough.

    A process that still has a deleted file mapped keeps it.
    """
    for folder in parent.iterdir():
        with suppress(OSError):
            if folder.name.startswith(_UNFINISHED):
                old = time.time() - folder.stat().st_mtime > _ABANDONED_AFTER_S
            else:
                old = folder.is_dir() and time.time() - (folder / _DONE).stat().st_mtime > _UNUSED_AFTER_S
            if old:
                shutil.rmtree(folder, ignore_errors=True)
    wanted, free = 2 * weights_bytes + _MARGIN_BYTES, shutil.disk_usage(parent).free
    if free < wanted:
        raise OSError(f"{wanted >> 20} MiB of disk are wanted, {free >> 20} MiB are free")


def _prepare(files: ModelFiles, directory: Path, threads: int) -> None:
    logger.info("preparing the weights in %s, once on this machine", directory)
    unfinished = directory.parent / f"{_UNFINISHED}{uuid.uuid4().hex}"
    target = unfinished / files.model_file
    target.parent.mkdir(parents=True)
    try:
        for file in files.directory.iterdir():
            if file.is_file() and file not in files.weights and file.stat().st_size < _LARGEST_SMALL_FILE_BYTES:
                shutil.copyfile(file, unfinished / file.name)
        _check_same(_write(files.graph, target, threads), target, threads)
        for file in (*unfinished.rglob("*"), unfinished):
            _sync(file)
        (unfinished / _DONE).touch()
        shutil.rmtree(directory, ignore_errors=True)
        unfinished.rename(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3  # it warns that the file belongs to this kind of machine, as it should
    return options


def _write(source: Path, target: Path, threads: int) -> onnxruntime.InferenceSession:
    """Optimise a model as it is optimised at every load, and write it with its rearranged weights."""
    options = _options(threads)
    options.optimized_model_filepath = str(target)
    # Names from onnxruntime's onnxruntime_session_options_config_keys.h.
    for key, value in {
        "session.optimized_model_external_initializers_file_name": f"{target.name}_data",
        "session.optimized_model_external_initializers_min_size_in_bytes": str(_LEAST_EXTERNAL_BYTES),
        "session.save_external_prepacked_constant_initializers": "1",
    }.items():
        options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def _check_same(source: onnxruntime.InferenceSession, target: Path, threads: int) -> None:
    """Compare the results, to the bit. A text model's inputs are token ids, a mask, and token types."""
    prepared = onnxruntime.InferenceSession(str(target), _options(threads), providers=["CPUExecutionProvider"])
    ids = np.arange(5, 37, dtype=np.int64).reshape(2, 16)
    values = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    feed: dict[str, Any] = {entry.name: values[entry.name] for entry in source.get_inputs()}
    for expected, found in zip(source.run(None, feed), prepared.run(None, feed), strict=True):
        if not np.array_equal(expected, found):
            raise _NotTheSameError("its results differ from the source's")


def _sync(path: Path) -> None:
    """Bring it to the disk: a folder that looks complete must be, whatever happens to the machine."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
