"""Adapters over fastembed: load a model by name or directory, measure rows in tokens, run one batch."""

import difflib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from fastembed.rerank.cross_encoder import TextCrossEncoder

from producer.errors import ConfigurationError, UnknownModel
from producer.wire.models import OFFLINE, is_directory_name
from workers.models import offline
from workers.models.prepared import PREPARE_BYTES, ModelFiles, prepared_directory
from workers.tasks import Measure

logger = logging.getLogger("headrace.worker")

Model = TypeVar("Model", TextEmbedding, TextCrossEncoder)

_REQUIRED = (offline.MODEL_FILE, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_LOCAL = ModelSource(hf="headrace/local")
"""fastembed wants a source; it is never asked when `specific_model_path` is given."""


class FastembedEmbedder:
    """A loaded TextEmbedding. One call is one batch: fastembed pads to the longest row it is handed."""

    def __init__(self, model: TextEmbedding, files: ModelFiles) -> None:
        self._model, self._files = model, files
        self._tokenizer = model.model.tokenizer  # type: ignore[attr-defined]
        self.dimension = int(self.embed(["warm-up"]).shape[1])
        self.max_tokens = _max_tokens(self._tokenizer)

    def measure(self, texts: Sequence[str]) -> list[Measure]:
        return _measure(self._tokenizer, list(texts))

    def embed(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        """Embed texts as one batch: float32, shape (n, dimension)."""
        return np.array(list(self._model.embed(list(texts), batch_size=len(texts))), dtype=np.float32)

    def weights_sha256(self) -> str:
        return self._files.sha256


class FastembedReranker:
    """A loaded TextCrossEncoder."""

    dimension = 0

    def __init__(self, model: TextCrossEncoder, files: ModelFiles) -> None:
        self._model, self._files = model, files
        self._tokenizer = model.model.tokenizer  # type: ignore[attr-defined]
        try:
            self.score([("warm-up", "warm-up")])
        except (TypeError, ValueError, IndexError) as error:
            raise ConfigurationError(
                "the model gives no score for a (query, document) pair: it is no cross-encoder, but an embedder perhaps"
            ) from error
        self.max_tokens = _max_tokens(self._tokenizer)

    def measure(self, pairs: Sequence[tuple[str, str]]) -> list[Measure]:
        return _measure(self._tokenizer, list(pairs))

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Score (query, document) pairs of any number of queries as one batch."""
        return [float(score) for score in self._model.rerank_pairs(list(pairs), batch_size=len(pairs))]

    def weights_sha256(self) -> str:
        return self._files.sha256


def load_embedder(
    name: str, *, cache_dir: Path, threads: int, prepare_bytes: float = PREPARE_BYTES
) -> FastembedEmbedder:
    """Load an embedding model and warm it up; weights of so many bytes or more are shared (see `prepared`).

    Raises:
        UnknownModel: neither fastembed nor this machine has a model of that name.
        ConfigurationError: its files are missing, broken, or cannot be downloaded.
    """
    directory = _directory(name, lambda: offline.embedder_directory(cache_dir))

    def register(registered: str, found: Path) -> None:
        TextEmbedding.add_custom_model(
            model=registered,
            pooling=_pooling(found),
            normalization=True,
            sources=_LOCAL,
            dim=1,  # not used: the warm-up tells the dimension
            model_file=offline.MODEL_FILE,
        )

    return FastembedEmbedder(
        *_opened(
            TextEmbedding, name, directory, register, cache_dir=cache_dir, threads=threads, prepare_bytes=prepare_bytes
        )
    )


def load_reranker(
    name: str, *, cache_dir: Path, threads: int, prepare_bytes: float = PREPARE_BYTES
) -> FastembedReranker:
    """Load a cross-encoder and warm it up; raises as `load_embedder` does."""
    directory = _directory(name, lambda: offline.reranker_directory(cache_dir))

    def register(registered: str, _found: Path) -> None:
        TextCrossEncoder.add_custom_model(model=registered, sources=_LOCAL, model_file=offline.MODEL_FILE)

    return FastembedReranker(
        *_opened(
            TextCrossEncoder,
            name,
            directory,
            register,
            cache_dir=cache_dir,
            threads=threads,
            prepare_bytes=prepare_bytes,
        )
    )


def _opened(
    model_class: type[Model],
    name: str,
    directory: Path | None,
    register: Callable[[str, Path], None],
    *,
    cache_dir: Path,
    threads: int,
    prepare_bytes: float,
) -> tuple[Model, ModelFiles]:
    """Load a model of fastembed's class: from a directory, registered under its path, or by the name it is known by."""
    known = _known_names(model_class.list_supported_models())
    if directory is None:
        _check_known(name, known)
        arguments: dict[str, Any] = {"model_name": name, "cache_dir": _hub_cache(cache_dir)}
        advice = "check its files, and that the model hub can be reached"
    else:
        registered = f"headrace/{directory}"
        if registered.lower() not in known:
            register(registered, directory)
        arguments = {"model_name": registered, "specific_model_path": str(directory), "cache_dir": str(cache_dir)}
        advice = f"check the files in {directory}"
    try:
        return _loaded(model_class, arguments, cache_dir=cache_dir, threads=threads, prepare_bytes=prepare_bytes)
    except Exception as error:
        problem = f"{type(error).__name__}: {_first_line(error)}"
        raise ConfigurationError(f"the model {name} cannot be loaded ({problem}); {advice}") from error


def _loaded(
    model_class: type[Model], arguments: dict[str, Any], *, cache_dir: Path, threads: int, prepare_bytes: float
) -> tuple[Model, ModelFiles]:
    """Load a model, from a prepared copy if it is big; its files are the original ones in either case."""
    model = model_class(threads=threads, lazy_load=True, **arguments)  # finds its files, or fetches them
    found = cast(Any, model.model)
    files = ModelFiles(directory=found._model_dir, model_file=found.model_description.model_file)
    if files.weights_bytes >= prepare_bytes:
        prepared = prepared_directory(files, cache_dir, threads=threads)
        if prepared is not None:
            try:
                return model_class(threads=threads, **{**arguments, "specific_model_path": str(prepared)}), files
            except Exception:  # a damaged copy must not keep a worker from its model
                logger.warning("the prepared weights in %s cannot be loaded: delete it", prepared, exc_info=True)
    found.load_onnx_model()
    return model, files


def _directory(name: str, offline_directory: Callable[[], Path]) -> Path | None:
    """The directory of a model that is on this machine, or None for one that fastembed must find."""
    if name == OFFLINE:
        return offline_directory()
    directory = Path(name).expanduser()
    if not is_directory_name(name) and not (directory / offline.MODEL_FILE).is_file():
        return None
    if not directory.is_dir():
        raise ConfigurationError(f"there is no model directory {name}")
    missing = [file for file in _REQUIRED if not (directory / file).is_file()]
    if missing:
        raise ConfigurationError(f"the model directory {name} lacks {', '.join(missing)}")
    return directory.resolve()


def _check_known(name: str, known: dict[str, str]) -> None:
    if name.lower() not in known:
        candidates = {**known, OFFLINE: OFFLINE}
        near = difflib.get_close_matches(name.lower(), list(candidates), n=3, cutoff=0.5)
        hint = f"; did you mean {', '.join(candidates[match] for match in near)}?" if near else ""
        raise UnknownModel(f"no model is named {name!r}: give one of fastembed's, 'offline' or a directory{hint}")


def _known_names(models: list[dict[str, Any]]) -> dict[str, str]:
    return {str(model["model"]).lower(): str(model["model"]) for model in models}


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no details"])[0][:200]


def _hub_cache(cache_dir: Path) -> str:
    """Where downloads are kept: where fastembed's own variable says, or in our cache folder."""
    return os.environ.get("FASTEMBED_CACHE_PATH") or str(cache_dir / "fastembed")


def _pooling(directory: Path) -> PoolingType:
    """Read how sentence-transformers pools this model; mean where it does not say."""
    try:
        config = json.loads((directory / "1_Pooling" / "config.json").read_text())
    except (OSError, ValueError):
        return PoolingType.MEAN
    return PoolingType.CLS if config.get("pooling_mode_cls_token") else PoolingType.MEAN


def _max_tokens(tokenizer: Any) -> int:
    return int((tokenizer.truncation or {}).get("max_length", 0))


def _measure(tokenizer: Any, inputs: list[Any]) -> list[Measure]:
    encodings = tokenizer.encode_batch(inputs)
    return [Measure(tokens=sum(item.attention_mask), truncated=bool(item.overflowing)) for item in encodings]
