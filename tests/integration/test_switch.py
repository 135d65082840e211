"""`headrace reembed switch` and `rollback` as people run them: which store, which pool, what they print."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from qdrant_client import QdrantClient

from console.reembed_switch import rollback, switch
from producer.provenance import Provenance
from producer.wire.models import resolve
from tests.integration.harness.commands import check_one_line, check_success
from tests.integration.harness.processes import ROOT
from tests.integration.harness.qdrant_program import QdrantServer
from tests.integration.harness.site import Site
from tests.unit.qdrant_stores import fill


@dataclass(frozen=True, kw_only=True)
class Desk:
    """An alias of its own at v1, and v2 beside it, which a run has filled; commands that find them."""

    site: Site
    server: QdrantServer
    client: QdrantClient
    alias: str

    def name(self, generation: int) -> str:
        return f"{self.alias}_v{generation}"

    def call(self, command: click.Command, *arguments: str) -> Result:
        environ = self.site.environ(HEADRACE_QDRANT_URL=self.server.url("any"))
        return CliRunner().invoke(command, arguments, env=environ)

    def at(self) -> str:
        return {each.alias_name: each.collection_name for each in self.client.get_aliases().aliases}[self.alias]


@pytest.fixture
def desk(solo: Site, qdrant: QdrantServer) -> Iterator[Desk]:
    client = qdrant.client()
    desk = Desk(site=solo, server=qdrant, client=client, alias=f"a{uuid.uuid4().hex}")
    fill(client, desk.name(1), {1: {}}, alias=desk.alias)
    _filled(desk, 2, tag=resolve("embed", solo.model).tag)
    yield desk
    client.close()


def _filled(desk: Desk, generation: int, **more: Any) -> None:
    fill(desk.client, desk.name(generation), {1: {}})
    values: dict[str, Any] = {
        "model": desk.site.model,
        "state": "complete",
        "alias": desk.alias,
        "replaces": desk.name(1),
    } | more
    provenance = Provenance(dimension=4, kind="passage", template="{text}", source="s", **values)
    desk.client.update_collection(desk.name(generation), metadata=provenance.as_metadata())


def test_an_alias_is_switched_and_rolled_back(desk: Desk) -> None:
    desk.site.beat("host/1/0")
    alias, old, new = desk.alias, desk.name(1), desk.name(2)

    told = check_success(desk.call(switch, alias))
    assert told == f"{alias} → {new} (was {old}); back with: headrace reembed rollback {alias}\n"
    assert desk.at() == new

    told = check_success(desk.call(rollback, alias))
    assert told == f"{alias} → {old} (was {new}); back with: headrace reembed switch {alias} --to {new}\n"
    assert desk.at() == old

    url = desk.server.url(alias)
    told = check_success(desk.call(switch, url, "--to", new))
    assert told.endswith(f"back with: headrace reembed rollback {url}\n")
    assert desk.at() == new


def test_a_collection_whose_model_nobody_serves_is_not_switched_to(desk: Desk) -> None:
    check_one_line(
        desk.call(switch, desk.alias), "no pool serves fake", "headrace worker embed --model fake", "--without-pool"
    )
    desk.site.beat("host/1/0", silent_ms=3_600_000)
    check_one_line(desk.call(switch, desk.alias), "no pool serves fake")
    assert desk.at() == desk.name(1)
    check_success(desk.call(switch, desk.alias, "--without-pool"))
    assert desk.at() == desk.name(2)


def test_vectors_of_another_release_of_the_model_are_not_switched_to(desk: Desk) -> None:
    desk.site.beat("host/1/0")
    _filled(desk, 3, tag="fake-00000000")
    check_one_line(desk.call(switch, desk.alias, "--to", desk.name(3)), "the vectors are of fake-00000000")
    assert desk.at() == desk.name(1)


def test_an_alias_is_made_when_told(desk: Desk) -> None:
    made = f"{desk.alias}-too"
    check_one_line(desk.call(switch, made, "--to", desk.name(1)), f"there is no alias '{made}'", "--create")
    assert check_success(desk.call(switch, made, "--to", desk.name(1), "--create")) == (
        f"{made} → {desk.name(1)} (new)\n"
    )


def test_no_time_is_spent_on_loading_qdrant_client(desk: Desk) -> None:
    program = "import sys; sys.modules['qdrant_client'] = None; from cli import main; main()"
    environ = desk.site.environ(HEADRACE_QDRANT_URL=desk.server.url("any"))
    desk.site.beat("host/1/0")
    for command, there in (("switch", desk.name(2)), ("rollback", desk.name(1))):
        words = [sys.executable, "-c", program, "reembed", command, desk.alias]
        done = subprocess.run(words, cwd=ROOT, env=environ, text=True, capture_output=True, timeout=60, check=False)
        assert (done.returncode, desk.at()) == (0, there), done.stderr


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "in which Qdrant is contacts? Set HEADRACE_QDRANT_URL"),
        ("http://localhost/x", "is no collection of Qdrant's: write qdrant://"),
        ("qdrant://127.0.0.1:1/x", "cannot be reached"),
        ("qdrant+local:/nowhere#x", "there is no Qdrant store in /nowhere"),
    ],
)
def test_a_store_that_is_not_there_is_one_line(url: str, reason: str) -> None:
    for command in (switch, rollback):
        check_one_line(CliRunner().invoke(command, ["contacts"], env={"HEADRACE_QDRANT_URL": url}), reason)
