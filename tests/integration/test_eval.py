"""`headrace eval` for real: the packaged sample through the offline pools, another run, another model, and trouble."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from console.trec import read_run
from producer.results import Vector
from producer.wire.models import resolve
from tests.integration.conftest import OfflinePools
from tests.integration.harness.commands import call, check_one_line, check_success
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import DIMENSION, FakeModel
from tests.integration.harness.site import Site

pytest.importorskip("ir_measures")

EMBED, RERANK = resolve("embed", "offline").tag, resolve("rerank", "offline").tag
WORDS = ("swim", "tax", "bees", "law")
DOCUMENTS = [f"{word} in it" for word in WORDS]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What `eval --json --out` printed and left."""

    site: Site
    printed: dict[str, Any]
    folder: Path

    def measures(self, place: int) -> dict[str, float]:
        found: dict[str, float] = self.printed["orders"][place]["measures"]
        return found


@pytest.fixture(scope="module")
def judged(offline: OfflinePools, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """The packaged sample, ranked once; whoever ranks it again finds it in the cache."""
    folder = tmp_path_factory.mktemp("eval") / "out"
    done = call(offline.site, "eval", "--json", "--out", str(folder))
    return Judged(site=offline.site, printed=json.loads(check_success(done)), folder=folder)


def test_rerank_is_better_than_embedding_alone(judged: Judged) -> None:
    before, after = judged.measures(0), judged.measures(1)

    assert (judged.printed["queries"], judged.printed["documents"], judged.printed["candidates"]) == (30, 100, 20)
    assert 0.8 < before["nDCG@10"] < after["nDCG@10"] < 1
    assert before["R@10"] < after["R@10"]
    assert list(before) == ["nDCG@10", "R@3", "R@10", "RR@10", "Success@1"]


def test_files_hold_what_was_printed(judged: Judged) -> None:
    assert sorted(path.name for path in judged.folder.iterdir()) == ["eval.json", "run.embed.txt", "run.rerank.txt"]
    assert json.loads((judged.folder / "eval.json").read_text()) == judged.printed
    runs = [read_run(judged.folder / f"run.{kind}.txt") for kind in ("embed", "rerank")]
    assert [run.name for run in runs] == [EMBED, f"{EMBED}+{RERANK}"]
    for query_id, ranking in runs[0].rankings.items():
        reranked = list(runs[1].rankings[query_id])
        assert len(ranking) == 100
        assert set(reranked[:20]) == set(list(ranking)[:20]), "the first 20 change their order"
        assert reranked[20:] == list(ranking)[20:], "and the others do not"


def test_another_run_is_compared(judged: Judged) -> None:
    other = judged.folder / "run.embed.txt"
    first, second, third = json.loads(
        check_success(call(judged.site, "eval", "--json", "--against", str(other), "--candidates", "5"))
    )["orders"]

    assert (first["agreement"], third["agreement"]) == ({"queries": 30, "top_1": 1.0, "recall_3": 1.0}, None)
    assert 0.5 < second["agreement"]["top_1"] < 1
    assert 0.5 < second["agreement"]["recall_3"] < 1
    assert third["measures"] == judged.measures(0) == first["measures"]
    assert (third["order"], third["whose"], third["run"]) == ("run", "against", EMBED)


def test_the_table_shows_gains_and_losses(judged: Judged) -> None:
    printed = check_success(call(judged.site, "eval", "--against", str(judged.folder / "run.rerank.txt")))

    row = next(line for line in printed.splitlines() if "nDCG@10" in line)
    before, after = judged.measures(0)["nDCG@10"], judged.measures(1)["nDCG@10"]
    assert [cell.strip() for cell in row.split("│")[2:6]] == [
        f"{before:.4f}",
        f"{after:.4f}",
        f"{after - before:+.4f}",
        f"{after:.4f}",
    ]
    assert "same top 1 as the other" in printed


class WordModel(FakeModel):
    """Embeds by the words of WORDS in a text; a forgetful one does not know the last of them."""

    def __init__(self, known: int = len(WORDS)) -> None:
        super().__init__()
        self._known = known

    def embed(self, texts: Sequence[str]) -> Vector:
        self._run(texts)
        vectors = np.full((len(texts), DIMENSION), 0.1, dtype=np.float32)
        for row, text in enumerate(texts):
            for place, word in enumerate(WORDS[: self._known]):
                vectors[row, place] += word in text
        return vectors


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A judged set whose every query is answered by the document with its word, but for one that is not judged."""
    (tmp_path / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": f"d-{word}", "title": word, "text": "in it"}) + "\n" for word in WORDS)
    )
    (tmp_path / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": f"q-{word}", "text": word}) + "\n" for word in [*WORDS, "unjudged"])
    )
    (tmp_path / "qrels.txt").write_text("".join(f"q-{word} 0 d-{word} 1\n" for word in WORDS))
    return tmp_path


def test_another_model_is_compared(solo: Site, words: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Engine(solo, WordModel()) as mine, Engine(replace(solo, model="other"), WordModel(known=2)) as other:
        done = call(
            solo, "eval", str(words), "--no-rerank", "--json", "--against", "other", "--out", str(out), "--k", "1"
        )
        own, against = json.loads(check_success(done))["orders"]
        with solo.producer() as producer:
            kinds = [producer.cached(texts, kind) for texts, kind in ((WORDS, "query"), (DOCUMENTS, "passage"))]

    assert all(map(all, kinds)), "queries are embedded as such, and documents with their titles"
    assert set(own["measures"].values()) == {1.0}
    # To the other, bees and law are one: for either it ranks bees, law, swim; and for a word it knows that, bees, law.
    # One's own first three are the word, and the two others that come first in the corpus.
    assert against["measures"]["Success@1"] == 0.75
    assert own["agreement"] == {"queries": 4, "top_1": 0.75, "recall_3": pytest.approx(2 / 3)}
    assert sorted(path.name for path in out.iterdir()) == ["eval.json", "run.against.embed.txt", "run.embed.txt"]
    assert len(mine.model.computed) == len(other.model.computed) == 8, "four judged queries, four documents"


def test_without_out_nothing_is_written(judged: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_success(call(judged.site, "eval", "--no-rerank"))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("/no/such/set",), "it is not a folder"),
        (("--qrels", "/no/such/file"), "/no/such/file cannot be read"),
        (("--against", "no-such-model"), "no run file of that name, and no embed pool serves it"),
        (("--against", "{words}/corpus.jsonl"), "line 1 is not of a TREC run"),
        (("--against", "{words}/strange.txt"), "ranks document d-swim, which packaged sample does not hold"),
        (("--against", "{words}/stranger.txt"), "ranks nothing for the judged queries of packaged sample"),
        (("--out", "/no/such/folder"), "/no/such is not a folder"),
        (("--rerank-model", "no-such-model"), "no rerank pool serves 'no-such-model'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_judged_is_told_in_one_line(
    judged: Judged, words: Path, arguments: tuple[str, ...], reason: str
) -> None:
    (words / "strange.txt").write_text("q01 Q0 d-swim 1 0.5 tag\n")
    (words / "stranger.txt").write_text("q-swim Q0 c001 1 0.5 tag\n")

    check_one_line(call(judged.site, "eval", *(part.format(words=words) for part in arguments)), reason)


def test_no_pool_is_told_before_anything_is_sent(solo: Site) -> None:
    check_one_line(call(solo, "eval"), "no embed pool serves 'fake'")
