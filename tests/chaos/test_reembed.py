"""The command that re-embeds is killed while it fills a collection; resumed, it leaves what an undisturbed run does."""

import time
from dataclasses import dataclass
from pathlib import Path

from producer.qdrant import QdrantAddress
from tests.chaos.campaign import Report, Sizes, chance
from tests.conftest import StartPool
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import HOLD, Record
from tests.integration.harness.processes import Program
from tests.integration.harness.qdrant_program import QdrantServer
from tests.integration.harness.reembedding import Reembedding, points_of, rss_mib, stored_points, write_records
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

WARM_ROWS = 5_000
"""After so many rows all is imported and every window is full: what grows from there on grows with the rows."""

MOST_GROWTH_MIB = 10.0


def test_a_killed_command_leaves_the_same_collection(
    solo: Site, start_pool: StartPool, tmp_path: Path, sizes: Sizes, seed: int, report: Report
) -> None:
    rows, kills, window = sizes(short=300, long=100_000), sizes(short=1, long=5), sizes(short=64, long=512)
    texts = [f"contact {number}, who works on subject {number % 97}" for number in range(rows - 1)]
    source = write_records(tmp_path / "contacts.jsonl", [*texts, f"{HOLD}the last one"])  # nobody ends too early
    places = {name: QdrantAddress(collection="contacts", path=str(tmp_path / name)) for name in ("killed", "whole")}
    commands = {
        name: Reembedding(solo, tmp_path / f"{name}-runs", source, place.name, "--window", str(window))
        for name, place in places.items()
    }
    pool = start_pool(solo, FAKE_ROW_MS=sizes(short="1", long="0"), HEADRACE_PROCESSES=sizes(short="1", long="2"))
    pool.await_healthy(sizes(short=1, long=2))

    draws, command, beyond = chance(seed, "moments"), commands["killed"], []
    started = time.monotonic()
    for least in sorted(draws.randrange(1 + rows // 10, rows * 9 // 10) for _ in range(kills)):
        program = command.start("--resume")
        command.await_rows(program, least)
        program.kill()
        beyond.append(stored_points(places["killed"]) - command.rows)
    Record(solo.client, solo.namespace).release()
    last = command.start("--resume")
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


def test_memory_does_not_grow_where_the_store_is_a_server(
    solo: Site, engine: Engine, tmp_path: Path, sizes: Sizes, report: Report
) -> None:
    rows = sizes(short=100, long=100_000)
    texts = [f"contact {number}, who works on subject {number % 97}" for number in range(rows)]
    source = write_records(tmp_path / "contacts.jsonl", texts)
    with QdrantServer(tmp_path / "server") as server:
        run = _watch(Reembedding(solo, tmp_path / "runs", source, server.url("contacts")))
    report(
        "re-embedding into a store that is another process",
        {"rows": rows, "seconds": f"{run.took_s:.0f}", **run.memory},
    )
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
