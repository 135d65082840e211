"""A pool of the offline embedder made int8 against its float32 pool, and what int8 costs in ranking."""

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.arrangement import embed_pool, told
from benchmarks.corpus import texts
from benchmarks.finding import Finding, Pair, in_turns
from benchmarks.site import site
from console.judging import packaged_sample
from producer import Producer
from producer.settings import load
from producer.wire.models import OFFLINE
from workers.models.optimize import optimize
from workers.models.optimize_plan import MOST_NDCG_LOSS, Order, Outcome
from workers.settings import WorkerSettings, cpu_limit

_ROWS = 160
_ROUNDS = 3


def run() -> list[Finding]:
    """Optimise into a temporary folder, then run both pools in turns over the mixed-length corpus."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "minilm-int8"
        order = Order(task="embed", model=OFFLINE, out_dir=made, methods=("dynamic", "static"))
        cache_dir = load(WorkerSettings, os.environ).cache_path
        outcome = optimize(
            order, packaged_sample(), cache_dir=cache_dir, threads=cpu_limit(), on_attempt=lambda _attempt: None
        )
        pair, cosine = _pools(str(made))
    return _findings(outcome, pair, cosine)


def _pools(made: str) -> tuple[Pair, float]:
    """Rows/s of both pools in turns, each text new to both; and the least cosine of a row alone against in a flood."""
    with site() as plain:
        optimised = replace(plain, models={**plain.models, "HEADRACE_EMBED_MODEL": made})
        with (
            plain.pool("embed", **embed_pool()),
            optimised.pool("embed", **embed_pool()),
            plain.producer() as original,
            optimised.producer() as fast,
        ):
            rounds = iter(range(1, 2 * _ROUNDS + 2))
            pair = in_turns(
                lambda: _rows_per_s(fast, texts(_ROWS, seed=(next(rounds) + 1) // 2)),
                lambda: _rows_per_s(original, texts(_ROWS, seed=(next(rounds) + 1) // 2)),
                rounds=_ROUNDS,
            )
            sample = texts(40, seed=99)
            flood = fast.embed_many(sample, kind="passage")
            alone = np.stack([fast.embed(text, kind="query") for text in sample])  # no prefixes, but a key of its own
    return pair, float(np.sum(flood * alone, axis=1).min())


def _rows_per_s(producer: Producer, batch: list[str]) -> float:
    started = time.perf_counter()
    rows = sum(1 for _ in producer.iter_embed(batch))
    return rows / (time.perf_counter() - started)


def _findings(outcome: Outcome, pair: Pair, cosine: float) -> list[Finding]:
    kept = outcome.kept
    runs = "batched" if kept.batch_invariant else "row by row"
    return [
        Finding(
            target="12",
            what=f"int8 offline embedder ({kept.method}, {runs}), bulk ({told(embed_pool())})",
            against="the float32 pool",
            measured=pair.ratio,
            bound=1.3,
            ours=f"{pair.ours:.1f} rows/s",
            theirs=f"{pair.theirs:.1f} rows/s",
            note="int8 gains most on CPUs with VNNI instructions, and attention stays float32",
        ),
        Finding(
            target="12",
            what="nDCG@10 that int8 loses",
            against="float32, 30 judged queries",
            measured=-kept.ndcg_change,
            bound=MOST_NDCG_LOSS,
            at_least=False,
            unit="",
            ours=f"{kept.ndcg_at_10_after:.4f}",
            theirs=f"{kept.ndcg_at_10_before:.4f}",
            note="with 30 queries any change of vectors moves it by 0.01 to 0.02",
        ),
        Finding(
            target="12",
            what="int8 vectors, alone against in a flood, least cosine",
            against="the same vector",
            measured=cosine,
            bound=0.9999,
            unit="",
            note="ranges that are taken while the model runs depend on what shares a batch",
        ),
    ]
