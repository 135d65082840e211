"""The command that re-embeds is killed while it fills a collection; resumed, it leaves what an undisturbed run does."""

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from producer.qdrant import QdrantAddress
from tests.chaos.campaign import Report, Sizes, chance
from tests.chaos.crashes import live_for
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import FakeModel, Gate
from tests.integration.harness.processes import Program
from tests.integration.harness.qdrant_program import QdrantServer
from tests.integration.harness.reembedding import Reembedding, points_of, rss_mib, stored_points, write_records
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

WARM_ROWS = 5_000
"""After so many rows all is imported and every window is full: what grows from there on grows with the rows."""

MOST_GROWTH_MIB = 10.0


def test_a_killed_command_leaves_the_same_collection(
    solo: Site, tmp_path: Path, sizes: Sizes, seed: int, report: Report
) -> None:
    rows, kills, window = sizes(short=300, long=100_000), sizes(short=1, long=5), sizes(short=64, long=512)
    source = write_records(tmp_path / "contacts.jsonl", _texts(rows))
    places = {name: QdrantAddress(collection="contacts", path=str(tmp_path / name)) for name in ("killed", "whole")}
    commands = {
        name: Reembedding(solo, tmp_path / f"{name}-runs", source, place.name, "--window", str(window))
        for name, place in places.items()
    }
    draws, gate = chance(seed, "moments"), Gate()
    with Engine(solo, FakeModel(gate), batch_tokens=sizes(short=64, long=1024)):
        # The short form would be over too soon: it gets nine rows a batch, and three quarters of all, before the kill.
        gate.let(rows // 12)
        if sizes.is_long:
            gate.open()
        moments = sorted(draws.randrange(1 + rows // 10, rows * 7 // 10) for _ in range(kills))
        started = time.monotonic()
        beyond = [_kill(commands["killed"], places["killed"], least, draws) for least in moments]
        gate.open()
        last = commands["killed"].start("--resume")
        assert last.wait(600) == 0, last.stderr
        killed_s = time.monotonic() - started
        if sizes.is_long:  # the short form may be quick
            _forget(solo)
        undisturbed = _watch(commands["whole"])
    assert all(0 <= count <= window for count in beyond), beyond
    collections = {name: points_of(place) for name, place in places.items()}
    assert len(collections["whole"]) == rows
    assert collections["killed"] == collections["whole"]
    report(
        "re-embedding into an embedded Qdrant",
        {
            "rows": rows,
            "seconds undisturbed": f"{undisturbed.took_s:.0f}",
            "rows/s": f"{rows / undisturbed.took_s:.0f}",
            **undisturbed.memory,
            "killed": kills,
            "seconds with the kills": f"{killed_s:.0f}",
            "rows written twice": f"{sum(beyond)} (at most {max(beyond)} a kill)",
            "collections identical": collections["killed"] == collections["whole"],
            "seed": seed,
        },
    )


def test_memory_does_not_grow_where_the_store_is_not_in_the_command(
    solo: Site, engine: Engine, tmp_path: Path, sizes: Sizes, report: Report
) -> None:
    rows = sizes(short=100, long=100_000)
    source = write_records(tmp_path / "contacts.jsonl", _texts(rows))
    with ExitStack() as stack:
        sinks = {"a file": str(tmp_path / "vectors.jsonl")}
        if sizes.is_long:
            server = stack.enter_context(QdrantServer(tmp_path / "server"))
            sinks["a store of another process"] = server.url("contacts")
        for name, sink in sinks.items():
            _forget(solo)
            run = _watch(Reembedding(solo, tmp_path / f"runs-{name}", source, sink))
            report(f"re-embedding into {name}", {"rows": rows, "seconds": f"{run.took_s:.0f}", **run.memory})
            assert run.last_mib - run.first_mib < MOST_GROWTH_MIB or not sizes.is_long


@dataclass
class _Undisturbed:
    """A whole run, and its memory at the first and the last look."""

    took_s: float = 0.0
    first_rows: int = 0
    first_mib: float = 0.0
    last_mib: float = 0.0

    @property
    def memory(self) -> dict[str, str]:
        return {f"MiB after {self.first_rows} rows": f"{self.first_mib:.0f}", "at the end": f"{self.last_mib:.0f}"}


def _kill(command: Reembedding, place: QdrantAddress, least: int, draws: Random) -> int:
    """Start the command, kill it soon after so many rows, and return how many it has written beyond its checkpoint."""
    program = command.start("--resume")
    command.await_rows(program, least)
    live_for(draws.uniform(0, 0.1))
    program.kill()
    return stored_points(place) - command.rows


def _texts(count: int) -> list[str]:
    """Texts of seven words."""
    return [f"contact {number}, who works on subject {number % 97}" for number in range(count)]


def _watch(command: Reembedding) -> _Undisturbed:
    seen, started, program = _Undisturbed(), time.monotonic(), command.start()

    def ended() -> bool:
        _look(seen, command, program)
        return not program.running

    wait_until(ended, 1200, what="the end of a run", poll_s=0.05)
    seen.took_s = time.monotonic() - started
    assert program.wait() == 0, program.stderr
    return seen


def _look(seen: _Undisturbed, command: Reembedding, program: Program) -> None:
    rows, mib = command.rows, rss_mib(program.pid)
    if not seen.first_rows and rows >= WARM_ROWS:
        seen.first_rows, seen.first_mib = rows, mib
    seen.last_mib = mib or seen.last_mib


def _forget(site: Site) -> None:
    """Delete all cached results, so that they are computed anew."""
    for key in site.client.scan_iter(f"{site.namespace}:emb:*", count=1000):
        site.client.unlink(key)
