"""One model on the bench: makes the variants that `optimize` tries, each as a directory, and compares them with it."""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import onnxruntime
from fastembed.common.model_description import PoolingType
from fastembed.text.custom_text_embedding import CustomTextEmbedding
from fastembed.text.pooled_embedding import PooledEmbedding

from producer.wire.models import split_revision
from workers.judged import JudgedSample
from workers.models import optimize_graph as graphs
from workers.models.findings import Findings
from workers.models.offline import MODEL_FILE
from workers.models.optimize_check import Arrangement, arrange, open_subject, record_feeds, rows_per_s
from workers.models.optimize_plan import LEAST_AGREEMENT, MOST_NDCG_LOSS, Attempt, Method, Order

_ROUNDS = 3
_CALIBRATION_FEEDS = 120
_POOLING = Path("1_Pooling") / "config.json"
_COPIED = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True, kw_only=True)
class _Original:
    """The model as it was: how it runs, what it was fed, and its nDCG@10."""

    arrangement: Arrangement
    feeds: list[graphs.Feed]
    ndcg_at_10: float
    weights: Path
    owner: Any
    """fastembed's model: its files, session and pooling."""


class Bench:
    """Makes and judges variants of one model in a folder of its own."""

    def __init__(self, order: Order, sample: JudgedSample, folder: Path, *, cache_dir: Path, threads: int) -> None:
        self._order = order
        self._sample = sample
        self._folder = folder
        self._cache_dir = cache_dir
        self._threads = threads

    def directory(self, method: Method) -> Path:
        """Where that method's model is."""
        return self._folder / method

    def attempt(self, method: Method) -> Attempt:
        """Make the model by that method and compare it with the original.

        Raises:
            HeadraceError: the original cannot be loaded.
        """
        original = self._original
        try:
            self._make(method)
            arrangement = arrange(self._open(str(self.directory(method))))
        except Exception as error:  # noqa: BLE001 - the tools raise anything; another method may work
            lines = str(error).strip().splitlines() or ["no details"]
            return Attempt(method=method, reason=f"cannot be made ({type(error).__name__}: {lines[0][:200]})")
        findings = self._compare(method, original, arrangement)
        return Attempt(method=method, findings=findings, reason=refusal(findings))

    def _make(self, method: Method) -> None:
        target = self.directory(method)
        self._copy_files(target)
        seven_bit, large = self._order.seven_bit, self._large
        if method == "fused":
            graphs.fuse(self._folded, target / MODEL_FILE, attention=True, large=large)
        elif method == "dynamic":
            graphs.quantise_dynamic(self._fused, target / MODEL_FILE, seven_bit=seven_bit, large=large)
        else:
            feeds = self._original.feeds
            graphs.quantise_static(self._fused, target / MODEL_FILE, feeds, seven_bit=seven_bit, large=large)
        for file in target.glob(f"{MODEL_FILE}.*"):
            shutil.copymode(target / MODEL_FILE, file)  # weights beside the graph are written for their owner alone

    def _compare(self, method: Method, original: _Original, arrangement: Arrangement) -> Findings:
        ratios = []
        for number in range(_ROUNDS):
            pair = [original.arrangement, arrangement]
            speeds = {id(item): rows_per_s(item) for item in (pair if number % 2 else pair[::-1])}
            ratios.append(speeds[id(arrangement)] / speeds[id(original.arrangement)])
        return Findings(
            source=self._order.model,
            source_sha256=original.arrangement.subject.weights_sha256(),
            task=self._order.task,
            method=self._order.describe(method),
            agreement=arrangement.subject.agreement(arrangement.outputs, original.arrangement.outputs),
            ndcg_at_10_before=original.ndcg_at_10,
            ndcg_at_10_after=arrangement.subject.ndcg(arrangement.outputs),
            batch_invariant=arrangement.batch_invariant,
            speedup=median(ratios),
            onnxruntime=onnxruntime.__version__,
        )

    @cached_property
    def _original(self) -> _Original:
        subject = self._open(split_revision(self._order.model)[0])
        owner = subject.fastembed_model
        arrangements: list[Arrangement] = []
        feeds = record_feeds(owner, lambda: arrangements.append(arrange(subject)))
        alone = feeds[: len(subject.rows)]
        return _Original(
            arrangement=arrangements[0],
            feeds=alone[:: max(1, len(alone) // _CALIBRATION_FEEDS)],
            ndcg_at_10=subject.ndcg(arrangements[0].outputs),
            weights=Path(owner._model_dir) / owner.model_description.model_file,
            owner=owner,
        )

    def _open(self, name: str) -> Any:
        return open_subject(
            self._order.task,
            name,
            self._sample,
            known_as=self._order.model,
            cache_dir=self._cache_dir,
            threads=self._threads,
        )

    @property
    def _large(self) -> bool:
        weights = self._original.weights
        # Stored as int8, weights are folded to four times their size.
        return 4 * sum(file.stat().st_size for file in weights.parent.glob(f"{weights.name}*")) > graphs.LARGE_BYTES

    @cached_property
    def _folded(self) -> Path:
        path = self._folder / "folded.onnx"
        graphs.fold(self._original.weights, path, large=self._large)
        return path

    @cached_property
    def _fused(self) -> Path:
        path = self._folder / "fused.onnx"
        graphs.fuse(self._folded, path, attention=False, large=self._large)
        return path

    def _copy_files(self, target: Path) -> None:
        """Put what a model directory needs beside the weights; pooling as fastembed does it for the original."""
        source = Path(self._original.owner._model_dir)
        target.mkdir()
        for name in _COPIED:
            if (source / name).is_file():
                shutil.copyfile(source / name, target / name)
        if self._order.task == "embed":
            (target / _POOLING).parent.mkdir()
            stated = source / _POOLING
            cls = {"pooling_mode_cls_token": pools_by_first_token(self._original.owner)}
            (target / _POOLING).write_text(stated.read_text() if stated.is_file() else json.dumps(cls) + "\n")


def pools_by_first_token(model: Any) -> bool:
    """Whether fastembed's class for a model takes the first token's vector; otherwise it takes the mean."""
    if isinstance(model, CustomTextEmbedding):
        return bool(model._pooling == PoolingType.CLS)
    return not isinstance(model, PooledEmbedding)


def refusal(findings: Findings) -> str:
    """Say why a model must not stand in for the original; "" if it may."""
    # Written so that NaN, which compares as false, is refused.
    if not findings.agreement >= LEAST_AGREEMENT:
        return f"agreement {findings.agreement:.4f}, at least {LEAST_AGREEMENT} is wanted"
    if not findings.ndcg_change >= -MOST_NDCG_LOSS:
        return f"nDCG@10 changes by {findings.ndcg_change:+.4f}, at most {-MOST_NDCG_LOSS} is allowed"
    return ""
