"""Migrations by the command line, with fake models: what people are told when something is not as it should be."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from qdrant_client import QdrantClient, models

from producer.bulk.collections import Collections
from producer.provenance import Provenance
from tests.integration.harness.commands import call, check_one_line, check_success
from tests.integration.harness.engine import Engine
from tests.integration.harness.ports import free_port
from tests.integration.harness.qdrant_program import QdrantServer
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

NEXT = "fake@next"


@dataclass(frozen=True, kw_only=True)
class Desk:
    """An alias at v1, which a run of the old model has filled, in a shared store; no pool runs."""

    site: Site
    server: QdrantServer
    client: QdrantClient
    alias: str

    @property
    def old(self) -> str:
        return f"{self.alias}_v1"

    @property
    def new(self) -> str:
        return f"{self.alias}_v2"

    @property
    def next_site(self) -> Site:
        return replace(self.site, model=NEXT)

    def call(self, *arguments: str, **environ: str) -> Result:
        return call(self.site, "reembed", *arguments, HEADRACE_QDRANT_URL=self.server.url("any"), **environ)

    def migrate(self, *options: str) -> Result:
        urls = self.server.url(self.alias), self.server.url(self.new)
        with serving(self.next_site):
            return self.call(*urls, "--model", NEXT, *options)

    def at(self) -> str:
        return {each.alias_name: each.collection_name for each in self.client.get_aliases().aliases}[self.alias]

    def state(self) -> str:
        found = Provenance.read(self.client.get_collection(self.new).config.metadata)
        assert found
        return found.state


@contextmanager
def serving(site: Site) -> Iterator[None]:
    """An engine for the site's model, from when people can see it."""
    with Engine(site, name=f"{site.model}/0"), site.producer() as producer:
        wait_until(lambda: producer.queue_state("embed").card, what=f"the card of {site.model}")
        yield


@pytest.fixture
def desk(solo: Site, qdrant: QdrantServer, tmp_path: Path) -> Iterator[Desk]:
    client = qdrant.client()
    desk = Desk(site=solo, server=qdrant, client=client, alias=f"a{uuid.uuid4().hex}")
    records = tmp_path / "records.jsonl"
    records.write_text("".join(f"{json.dumps({'id': n, 'text': f'text {n}'})}\n" for n in range(40)))
    with serving(solo):
        check_success(desk.call(str(records), qdrant.url(desk.old)))
    solo.beat("host/1/0")
    check_success(desk.call("switch", desk.alias, "--to", desk.old, "--create"))
    yield desk
    client.close()


def point(number: int) -> models.PointStruct:
    """A point that no model made."""
    return models.PointStruct(id=number, vector=[-1.0] * 8, payload={"id": number, "text": f"text {number}"})


def test_a_tampered_vector_ends_the_run_and_moves_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    count = Collections.count

    def tamper_and_count(collections: Collections, name: str, *arguments: Any) -> int:
        """Somebody writes other vectors just before the run verifies its own."""
        if name == desk.new:
            desk.client.upsert(name, [point(n) for n in range(9)])
        return count(collections, name, *arguments)

    monkeypatch.setattr(Collections, "count", tamper_and_count)
    done = desk.migrate()
    assert done.exit_code == 1
    assert "points of " + desk.new + " hold another vector than their text has" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("nothing shows it to anyone: begin anew with --overwrite")
    check_one_line(desk.call("switch", desk.alias), f"{desk.new} is not complete yet")
    assert (desk.at(), desk.state()) == (desk.old, "filling")

    monkeypatch.undo()
    check_success(desk.migrate("--overwrite"))
    assert desk.state() == "complete"


def test_a_rollback_needs_the_old_model_s_pool_or_to_be_told(desk: Desk) -> None:
    check_success(desk.migrate())
    check_success(desk.call("switch", desk.alias, "--without-pool"))
    desk.site.beat("host/1/0", silent_ms=3_600_000)
    check_one_line(desk.call("rollback", desk.alias), "no pool serves fake", "--without-pool")
    nowhere = {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    check_one_line(desk.call("rollback", desk.alias, **nowhere), "(--without-pool moves the alias all the same)")
    assert desk.at() == desk.new
    check_success(desk.call("rollback", desk.alias, "--without-pool", **nowhere))
    assert desk.at() == desk.old


def test_what_came_after_the_switch_is_told_at_the_rollback(desk: Desk) -> None:
    check_success(desk.migrate())
    check_success(desk.call("switch", desk.alias, "--without-pool"))
    desk.client.upsert(desk.new, [point(77)])
    done = desk.call("rollback", desk.alias)
    check_success(done)
    assert done.stderr == f"{desk.old} has 1 points fewer than {desk.new}: they are not found now\n"
    check_one_line(desk.call("switch", desk.alias, "--to", desk.old), f"points at {desk.old} already")


def test_an_old_collection_that_is_gone_is_one_line(desk: Desk) -> None:
    check_success(desk.migrate())
    check_success(desk.call("switch", desk.alias, "--without-pool"))
    desk.client.delete_collection(desk.old)
    check_one_line(desk.call("rollback", desk.alias), f"{desk.old}, where {desk.alias} pointed before, is gone")
    assert desk.at() == desk.new


def test_a_part_is_tried_and_is_not_switched_to(desk: Desk) -> None:
    check_success(desk.migrate("--limit", "5"))
    check_one_line(desk.call("switch", desk.alias, "--without-pool"), "holds a part of the data only", "--partial")
