"""How real pools start, or refuse to: broken models, unknown names, other weights under a tag that is taken."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import StartPool, make_site
from tests.integration.harness.processes import PoolProgram
from tests.integration.harness.site import Site
from workers.models.offline import embedder_directory

EMBED = "workers.embed_worker"
RERANK = "workers.rerank_worker"


@pytest.fixture
def broken_model(tmp_path: Path, model_cache: Path) -> Path:
    """A model directory whose weights are cut off."""
    directory = tmp_path / "broken-model"
    shutil.copytree(embedder_directory(model_cache), directory)
    weights = directory / "model.onnx"
    weights.write_bytes(weights.read_bytes()[:1000])
    return directory


def test_a_model_that_cannot_be_loaded_ends_the_pool(
    one_server: str, start_pool: StartPool, broken_model: Path
) -> None:
    for site in make_site(one_server, model=str(broken_model)):
        pool = start_pool(site, EMBED)
        assert pool.wait() != 0
        _check_one_reason(pool, f"the model {broken_model} cannot be loaded")


def test_a_directory_without_a_model_ends_the_pool(one_server: str, start_pool: StartPool, tmp_path: Path) -> None:
    for site in make_site(one_server, model=str(tmp_path / "nothing-here")):
        pool = start_pool(site, RERANK, task="rerank")
        assert pool.wait() != 0
        _check_one_reason(pool, f"there is no model directory {tmp_path}/nothing-here")


def test_an_unknown_name_ends_the_pool_with_a_suggestion(one_server: str, start_pool: StartPool) -> None:
    for site in make_site(one_server, model="intfloat/multilingual-e5-larg"):
        pool = start_pool(site, EMBED)
        assert pool.wait() != 0
        _check_one_reason(pool, "did you mean intfloat/multilingual-e5-large")


def test_other_weights_under_a_taken_tag_are_refused(
    one_server: str, start_pool: StartPool, tmp_path: Path, model_cache: Path
) -> None:
    original, same, changed = (tmp_path / name / "my-model" for name in ("original", "same", "changed"))
    for directory in (original, same, changed):
        shutil.copytree(embedder_directory(model_cache), directory)
    with (changed / "tokenizer.json").open("a") as tokenizer:
        tokenizer.write("\n")  # other bytes; it loads and works

    for site in make_site(one_server, model=str(original)):
        first = start_pool(site, EMBED)
        first.await_healthy()
        before = _embed(site)

        refused = start_pool(site, EMBED, HEADRACE_EMBED_MODEL=str(changed))
        assert refused.wait() != 0
        _check_one_reason(refused, "other weights are published for embed model")
        second = start_pool(site, EMBED, HEADRACE_EMBED_MODEL=str(same))
        second.await_healthy()
        assert first.running
        assert _embed(site) == before

        beside = start_pool(site, EMBED, HEADRACE_EMBED_MODEL=f"{changed}@2")
        with site.producer(embed_model=f"{changed}@2") as producer:
            assert producer.embed("text", timeout_s=60).tolist() == before
        assert beside.running


def _embed(site: Site) -> list[float]:
    with site.producer() as producer:
        vector: list[float] = producer.embed("text").tolist()
        return vector


def _check_one_reason(pool: PoolProgram, reason: str) -> None:
    """The cause is said once, without a traceback, and nothing is tried again."""
    assert pool.stderr.count(reason) == 1, pool.stderr
    assert "Traceback" not in pool.stderr
    assert pool.stderr.count("loading") == 1, "one attempt"
