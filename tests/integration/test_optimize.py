"""`headrace optimize` for real: an int8 model that a pool loads by its directory; and how the command fails."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cli import main
from console.judging import packaged_sample
from tests.integration.harness.commands import check_one_line
from workers.embed_worker import load
from workers.judged import JudgedSample
from workers.models.fastembed_models import load_embedder
from workers.models.findings import FILE
from workers.models.optimize import optimize
from workers.models.optimize_plan import Attempt, Method, Order
from workers.settings import WorkerSettings

pytest.importorskip("sympy")
pytest.importorskip("ir_measures")


def small_sample() -> JudgedSample:
    """The shortest of the packaged sample, since judging all of it takes half a minute."""
    whole = packaged_sample()
    chosen = ["q01", "q03", "q10"]
    documents = {key: whole.documents[key] for query in chosen for key in whole.candidates(query, 4)}
    return JudgedSample(
        queries={query: whole.queries[query] for query in chosen},
        documents={key: text for key, text in documents.items() if len(text) < 200},
        relevance={query: whole.relevance[query] for query in chosen},
    )


def test_an_int8_model_is_made_checked_and_served(
    tmp_path: Path, model_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "minilm-int8"
    attempts: list[Attempt] = []
    order = Order(task="embed", model="offline", out_dir=made, methods=("static",))
    with monkeypatch.context() as patch:  # as if the model were a big one, whose prepared copy no tool can read
        patch.setattr(load_embedder, "__kwdefaults__", {"prepare_bytes": 1})
        outcome = optimize(order, small_sample(), cache_dir=model_cache, threads=2, on_attempt=attempts.append)

    assert [entry.name for entry in tmp_path.iterdir()] == ["minilm-int8"], "nothing is left over"
    assert (made / FILE).is_file()
    assert tuple(attempts) == outcome.attempts
    assert outcome.kept.batch_invariant, "calibrated ranges do not depend on the batch"
    loaded = load(WorkerSettings(embed_model=str(made), cache_dir=str(model_cache), threads=2))
    assert loaded.card.method.startswith("int8 static: agreement 0.9")
    assert (loaded.card.batch_invariant, loaded.card.max_tokens) == (True, 256)
    assert loaded.card.weights_sha256 != outcome.kept.source_sha256
    vectors = [
        load_embedder(name, cache_dir=model_cache, threads=2).embed(["The mill wheel turned all night."])[0]
        for name in (str(made), "offline")
    ]
    assert 0.97 < float(np.dot(*vectors)) < 0.99999, "much like the original, and not the original"


@pytest.mark.parametrize(
    ("model", "out", "reason"),
    [
        ("no/such-model", "out", "no model is named 'no/such-model'"),
        ("offline", "taken", "exists"),
        ("offline", "none/out", "there is no folder"),
        ("intfloat/multilingual-e5-large", "out", "such as multilingual-e5-large-fast"),
        ("./nowhere", "out", "there is no model directory ./nowhere"),
    ],
)
def test_what_cannot_be_optimised_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, out: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(main, ["optimize", model, out], env={"HEADRACE_CACHE_DIR": str(tmp_path / "taken")})

    check_one_line(done, reason)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_that_fails_its_checks_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        def __init__(self, _order: Order, _sample: JudgedSample, folder: Path, **_rest: object) -> None:
            (folder / "half-made").write_text("")

        def attempt(self, method: Method) -> Attempt:
            return Attempt(method=method, reason="agreement 0.1000")

    monkeypatch.setattr("workers.models.optimize_trial.Bench", Failing)
    done = CliRunner().invoke(main, ["optimize", "offline", str(tmp_path / "out"), "--method", "fused"])

    assert done.exit_code != 0
    assert "no method passes the checks for offline (fused: agreement 0.1000)" in done.stderr
    assert list(tmp_path.iterdir()) == []
