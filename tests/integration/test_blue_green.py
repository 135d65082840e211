"""A collection moves from one real model to another of another dimension, and back, while everybody searches."""

import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from producer.bulk.aliases import carry_out, plan_rollback
from producer.bulk.collections import open_collections
from producer.results import Vector
from tests.conftest import pool_starter
from tests.integration.conftest import OfflinePools
from tests.integration.harness.commands import call, check_success, run
from tests.integration.harness.processes import ROOT, PoolProgram
from tests.integration.harness.qdrant_program import QdrantServer
from tests.integration.harness.searchers import LIMIT, Search, Searchers
from tests.integration.harness.site import Site
from tests.integration.harness.small_model import make_small_model, small_vectors

USERS = (1, 2, 3)
RECORDS = 30
ALIAS, OLD, NEW = "people", "people_v1", "people_v2"


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Both models' pools, a store, the records in a file; and commands."""

    site: Site
    small: str
    small_pool: PoolProgram
    server: QdrantServer
    folder: Path
    records: list[dict[str, object]]

    def command(self, *arguments: str) -> str:
        """Run it in this process, which has loaded all that it needs."""
        done = call(self.site, "reembed", *arguments, HEADRACE_QDRANT_URL=self.server.url("any"))
        return check_success(done) + done.stderr

    def program(self, *arguments: str) -> str:
        """Run it as a process."""
        done = run(self.site, "reembed", *arguments, HEADRACE_QDRANT_URL=self.server.url("any"))
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def desk(offline: OfflinePools, model_cache: Path, qdrant: QdrantServer, tmp_path: Path) -> Iterator[Desk]:
    small = make_small_model(model_cache, tmp_path)
    lines = (ROOT / "console" / "records.jsonl").read_text().splitlines()[:RECORDS]
    records = [{**json.loads(line), "user_id": USERS[number % 3]} for number, line in enumerate(lines)]
    (tmp_path / "records.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    site = replace(offline.site, model=str(small))
    for start in pool_starter(tmp_path / "pool", model_cache):
        pool = start(site, "workers.embed_worker", HEADRACE_BATCH_TOKENS="512")
        yield Desk(
            site=offline.site, small=str(small), small_pool=pool, server=qdrant, folder=tmp_path, records=records
        )


def test_a_collection_moves_to_another_model_and_back_while_everybody_searches(desk: Desk) -> None:
    url = desk.server.url
    desk.command(str(desk.folder / "records.jsonl"), url(OLD))
    desk.command("switch", ALIAS, "--to", OLD, "--create")

    took_s = []
    with Searchers(desk.site, desk.server, ALIAS) as searchers:
        searchers.await_sight(OLD)
        desk.small_pool.await_healthy()
        told = desk.program(url(ALIAS), url(NEW), "--model", desk.small)
        assert f"{RECORDS} points, {RECORDS} of them embedded again" in told
        moves = ((desk.command, "switch", NEW), (desk.program, "rollback", OLD), (desk.command, "switch", NEW))
        for how, command, target in moves:
            began_s = time.monotonic()
            assert how(command, ALIAS).startswith(f"{ALIAS} → {target}")
            took_s.append((f"{command} as a {how.__name__}", time.monotonic() - began_s))
            searchers.await_sight(target)
        took_s.append(("rollback, the operation alone", roll_back(desk)))
        searchers.await_sight(OLD)

    assert searchers.failures == []
    check_alias(searchers)
    check_models(desk, searchers.searches)
    for what, seconds in [*took_s, *seen_after_s(searchers)]:
        print(f"{what}: {seconds * 1000:.0f} ms")
    print(f"{len(searchers.searches)} searches, {len(searchers.sights)} looks at the alias")


def roll_back(desk: Desk) -> float:
    """Roll back without a process of its own, and time it."""
    with open_collections(desk.server.address(ALIAS), "") as collections:
        collections.aliases()  # connected
        began_s = time.monotonic()
        carry_out(collections, plan_rollback(collections, ALIAS))
        return time.monotonic() - began_s


def check_alias(searchers: Searchers) -> None:
    """Whatever the alias pointed at was whole, and said so."""
    targets = [target for target, _ in itertools.groupby(sight.target for sight in searchers.sights)]
    assert targets == [OLD, NEW, OLD, NEW, OLD]
    assert {(sight.points, sight.state) for sight in searchers.sights} == {(RECORDS, "complete")}


def check_models(desk: Desk, searches: list[Search]) -> None:
    """Every result is its user's, and all of its scores are those of the one model whose vectors it searched."""
    places = {query: number for number, query in enumerate({search.query for search in searches})}
    rows = {str(record["id"]): number for number, record in enumerate(desk.records)}
    with desk.site.producer() as producer:
        asked = producer.embed_many(list(places), kind="query")
        stored = producer.embed_many([str(record["text"]) for record in desk.records])
    scores = {OLD: cosines(asked, stored), NEW: cosines(small_vectors(asked), small_vectors(stored))}
    names = {OLD: "offline", NEW: desk.small}
    for search in searches:
        found, hits = search.found, search.found.results
        assert len(hits) == LIMIT
        assert {hit.payload["user_id"] for hit in hits} == {search.user}
        assert (found.model, found.fallback_used) == (names[found.collection], False)
        told = np.array([hit.vector_score for hit in hits])
        matching = {
            name
            for name, matrix in scores.items()
            if np.abs(told - matrix[places[search.query], [rows[str(hit.payload["id"])] for hit in hits]]).max() < 1e-4
        }
        assert matching == {found.collection}


def cosines(queries: Vector, passages: Vector) -> Vector:
    """Of normalised vectors: shape (queries, passages)."""
    return np.asarray(queries @ passages.T)


def seen_after_s(searchers: Searchers) -> list[tuple[str, float]]:
    """How long after each move of the alias was seen a search still began that found the collection before."""
    ends = [[*stay][-1] for _, stay in itertools.groupby(searchers.sights, key=lambda sight: sight.target)]
    starts = [next(stay) for _, stay in itertools.groupby(searchers.sights, key=lambda sight: sight.target)]
    told = []
    for old, new, end in zip(ends, starts[1:], ends[1:], strict=False):
        late = [
            search.began_s - new.at_s
            for search in searchers.searches
            if search.found.collection == old.target and old.at_s <= search.began_s <= end.at_s
        ]
        told.append((f"last search in {old.target} after {new.target} was seen", max(late, default=0.0)))
    return told
