"""Many rows of every kind, and afterwards nothing is larger than before: no key, no memory, no thread, no open file."""

import os
import time

from producer.wire.models import TASKS
from tests.chaos.campaign import Report, Sizes, chance
from tests.chaos.meters import Reading, count_keys, load_left, read
from tests.chaos.noting_pool import PROGRAM
from tests.chaos.soak_mix import FAILING, ROWS, Mix
from tests.conftest import StartPool
from tests.integration.harness.processes import PoolProgram
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

REPLY_TTL_S = 2
WARM_UP = 0.2
"""Share of the rows before the first reading: until then everything finds its size."""

NOISE_BYTES = 4 << 20
"""What a process may come to hold whatever the number of rows."""

NOISE_REDIS_BYTES = 1 << 19
LEAK_BYTES_PER_ROW = 25
"""Growth that is a leak, once the rows are many: 4 MiB at 160,000; one of two workers computes half of them."""

FEW = 4
"""Connections, threads and files that may be open at one reading and not at the other: pools of them are lazy."""


def test_nothing_grows(
    own_site: Site, start_pool: StartPool, sizes: Sizes, rows: int, seed: int, report: Report
) -> None:
    count = sizes(short=3_000, long=rows)
    settings = {"HEADRACE_REPLY_TTL_S": str(REPLY_TTL_S), "HEADRACE_LOG_LEVEL": "error"}
    pools = {
        "embed": start_pool(own_site, PROGRAM, HEADRACE_PROCESSES="2", **settings),
        "rerank": start_pool(own_site, PROGRAM, task="rerank", CHAOS_TASK="rerank", **settings),
    }
    workers = {"embed": pools["embed"].await_healthy(2), "rerank": pools["rerank"].await_healthy()}
    pids = _roles(pools, workers)
    started = time.monotonic()
    with own_site.producer() as lasting:
        mix = Mix(own_site, lasting, chance(seed, "soak"))
        while mix.tally.rows < max(2 * ROWS, WARM_UP * count):
            mix.round()
        before, rows_before = _read_at_rest(own_site, pids), mix.tally.rows
        while mix.tally.rows < count:
            mix.round()
        took_s = time.monotonic() - started
        after, rows_between = _read_at_rest(own_site, pids), mix.tally.rows - rows_before
        counters = own_site.counters()

    assert {task: pools[task].workers() for task in pools} == workers, "no worker was restarted"
    report("soak", _figures(mix, counters, before, after) | {"seconds": f"{took_s:.0f}", "seed": seed})
    assert all((mix.tally.timeouts, counters.get("hits"), counters.get("expired"))), "it has a bit of everything"
    _check_flat(before, after, rows_between)


def _roles(pools: dict[str, PoolProgram], workers: dict[str, dict[str, int]]) -> dict[str, int]:
    roles = {"this process": os.getpid()}
    for task, pool in pools.items():
        roles[f"{task} pool"] = pool.pid
        roles |= {f"{task} worker {number}": pid for number, pid in enumerate(sorted(workers[task].values()))}
    return roles


def _read_at_rest(site: Site, pids: dict[str, int]) -> Reading:
    """Read when nothing is on its way and results have expired; dead letters, which are kept on purpose, go first."""
    for task in TASKS:
        site.await_empty(task)
        assert not load_left(site, task)
        site.client.delete(site.queue(task).dead)
    wait_until(lambda: _replies(site) <= len(FAILING), 60, what="the end of the results")
    return read(site, pids)


def _replies(site: Site) -> int:
    keys = count_keys(site)
    return keys.get("emb", 0) + keys.get("rr", 0)


def _figures(mix: Mix, counters: dict[str, int], before: Reading, after: Reading) -> dict[str, object]:
    figures: dict[str, object] = {
        "rows": mix.tally.rows,
        "cache hits": counters.get("hits", 0),
        "jobs dropped as too old": counters.get("expired", 0),
        "rows that failed": mix.tally.failures,
        "callers out of time": mix.tally.timeouts,
        "producers made and closed": mix.tally.producers,
        "keys": f"{dict(sorted(before.keys.items()))} then {dict(sorted(after.keys.items()))}",
        "Redis memory": f"{before.redis_bytes / 1e6:.2f} then {after.redis_bytes / 1e6:.2f} MB",
        "connections": f"{before.clients} then {after.clients}",
    }
    for role, then in before.processes.items():
        now = after.processes[role]
        figures[role] = (
            f"{then.rss_bytes / 1e6:.1f} then {now.rss_bytes / 1e6:.1f} MB, {then.threads} then {now.threads} threads, "
            f"{then.descriptors} then {now.descriptors} files"
        )
    return figures


def _check_flat(before: Reading, after: Reading, rows: int) -> None:
    leak_bytes = LEAK_BYTES_PER_ROW * rows
    assert after.keys == before.keys
    assert after.channels <= before.channels
    assert after.consumers == before.consumers
    assert after.clients <= before.clients + FEW
    assert after.redis_bytes - before.redis_bytes < max(NOISE_REDIS_BYTES, leak_bytes)
    for role, then in before.processes.items():
        now = after.processes[role]
        assert now.rss_bytes - then.rss_bytes < max(NOISE_BYTES, leak_bytes), role
        assert now.threads <= then.threads + FEW, role
        assert now.descriptors <= then.descriptors + FEW, role
