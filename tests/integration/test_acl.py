"""The users of docker/users.acl at their work: everything runs, nothing is refused, and nothing is granted in vain."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from producer import ResultTimeout, RowFailed, search_cache
from producer.hints import Switchboard
from producer.search_effects import BeginGeneration, Forget, ReadCache, WriteCache
from producer.wire.keys import Lane, SearchKeys
from tests.conftest import StartPool
from tests.integration.harness import commands, detached
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import HOLD, FakeModel, Record, vector_of, vectors_of
from tests.integration.harness.guarded import ADMIN, USERS, Guarded, guarded_redis
from tests.integration.harness.processes import PoolProgram
from tests.integration.harness.site import passage
from tests.integration.harness.waiting import wait_until

TEXTS = [f"text number {number}" for number in range(20)]
HELD = f"{HOLD}first"
LATE_S = 0.2

Heard = list[bytes]

UNSENT = {
    "producer": {"ping"},
    "worker": {"ping", "xgroup|delconsumer", "xtrim"},
    "reembed": {"get"},
    "operator": set[str](),
}
"""Granted, and not sent here: for a health check in the URL, consumers idle for an hour, 128 MiB of dead letters, a job
of RQ's whose worker died the moment it took it."""


@pytest.fixture
def guarded(request: pytest.FixtureRequest, acl_server: Path, tmp_path: Path) -> Iterator[Guarded]:
    """A server with the users and the scripts; at the end, nobody was refused anything. A parameter is a namespace."""
    with guarded_redis(acl_server, tmp_path / "redis", namespace=getattr(request, "param", "")) as guarded:
        guarded.load_scripts()
        yield guarded
        assert guarded.refusals() == []


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Heard:
    """The hints that reach this process."""
    hints: Heard = []
    deliver = Switchboard.deliver

    def note(self: Switchboard, hint: bytes) -> None:
        hints.append(hint)
        deliver(self, hint)

    monkeypatch.setattr(Switchboard, "deliver", note)
    return hints


@pytest.fixture
def start(guarded: Guarded, start_pool: StartPool) -> Callable[..., PoolProgram]:
    """Starts pools as the worker."""

    def start(**environ: str) -> PoolProgram:
        module = "tests.integration.harness.guarded_pool"
        return start_pool(guarded.site("worker"), module, RECORD_URL=guarded.url(ADMIN), **environ)

    return start


@pytest.fixture
def record(guarded: Guarded) -> Record:
    """The work of the pools."""
    return Record(guarded.admin, guarded.namespace)


@pytest.mark.parametrize("guarded", ["", "acme"], indirect=True, ids=["no-namespace", "namespace"])
def test_the_sync_producer_does_all_its_work(guarded: Guarded, heard: Heard) -> None:
    site, worker = guarded.site("producer"), guarded.site("worker")
    with Engine(worker), Engine(worker, task="rerank"), site.producer() as producer:
        assert np.array_equal(producer.embed("a question"), vector_of("a question"))
        assert np.array_equal(producer.embed_many(TEXTS), vectors_of(TEXTS))
        assert len(list(producer.iter_embed(f"bulk {text}" for text in TEXTS))) == len(TEXTS)
        assert len(producer.rerank("a question", TEXTS).results) == len(TEXTS)
        assert producer.cached([TEXTS[0], "another"]) == [True, False]
        assert producer.queue_state("embed").card is not None
        assert [state.task for state in producer.queue_states() if state.workers] == ["embed", "rerank"]
        wait_until(lambda: passage(TEXTS[0]).digest in b"".join(heard), what="a hint, and not only a re-check")
        site.await_empty()
    assert guarded.site("producer").counters()["misses"] == 2 * len(TEXTS) + 1


def test_the_async_producer_does_all_its_work(guarded: Guarded, heard: Heard) -> None:
    async def ask() -> None:
        async with guarded.site("producer").async_producer() as producer:
            assert np.array_equal(await producer.embed_many(TEXTS), vectors_of(TEXTS))
            assert [vector.size async for vector in producer.iter_embed(["bulk"])] == [FakeModel.dimension]
            assert (await producer.rerank("a question", TEXTS, 1)).results
            assert await producer.cached(TEXTS) == [True] * len(TEXTS)
            assert await producer.queue_states()

    worker = guarded.site("worker")
    with Engine(worker), Engine(worker, task="rerank"):
        asyncio.run(ask())
    assert passage(TEXTS[0]).digest in b"".join(heard)


def test_failed_rows_are_buried_and_late_jobs_dropped(guarded: Guarded) -> None:
    def refuse(_batch: object) -> None:
        raise ValueError("no row runs")

    site = guarded.site("producer")
    with site.producer() as producer:
        with pytest.raises(ResultTimeout):
            producer.embed_many(TEXTS, timeout_s=LATE_S)
        wait_until(lambda: _age_ms(guarded) > LATE_S * 1000, what="the end of the time budget")
        with Engine(guarded.site("worker"), FakeModel(refuse)):
            site.await_empty()
            assert producer.queue_state("embed").dead == 0
            with pytest.raises(RowFailed):
                producer.embed("bad")
        assert producer.queue_state("embed").dead == 1
    assert site.counters()["expired"] == len(TEXTS)


def test_a_pool_is_taken_over_from(guarded: Guarded, start: Callable[..., PoolProgram], record: Record) -> None:
    with guarded.site("producer").producer() as producer, ThreadPoolExecutor(1) as threads:
        pool = start(HEADRACE_BATCH_TOKENS="1")
        (worker,) = pool.await_healthy().values()
        answer = threads.submit(producer.embed_many, [HELD, *TEXTS])
        wait_until(lambda: record.holders(HELD) == [worker], what="the row in hand")
        pool.kill_all()
        with Engine(guarded.site("worker"), name="another/0", lease_s=0.5):
            assert np.array_equal(answer.result(60), vectors_of([HELD, *TEXTS]))
        guarded.site("producer").await_empty()


def test_a_pool_restarts_its_processes_and_stops_in_order(
    guarded: Guarded, start: Callable[..., PoolProgram], record: Record
) -> None:
    with guarded.site("producer").producer() as producer, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(producer.embed_many, [HELD, *TEXTS])
        wait_until(lambda: guarded.site("producer").waiting() == len(TEXTS) + 1, what="a queue")
        pool = start(HEADRACE_BATCH_TOKENS="1")
        (worker,) = wait_until(lambda: record.holders(HELD), what="the row in hand, and others behind it")
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: len(record.holders(HELD)) == 2, what="a process in its place")
        pool.terminate()
        wait_until(lambda: record.signals() == 1, what="the worker's SIGTERM")
        record.release()
        assert pool.wait() == 0
        assert not producer.queue_state("embed").workers, "its heartbeat is taken away"
        with Engine(guarded.site("worker"), lease_s=10_000):  # so that only what was handed back can be taken over
            assert np.array_equal(answer.result(60), vectors_of([HELD, *TEXTS]))


def test_the_operator_looks_and_tries(guarded: Guarded, tmp_path: Path) -> None:
    site = guarded.site("operator")
    with Engine(guarded.site("worker")):
        wait_until(lambda: commands.call(site, "health", "embed").exit_code == 0, what="a healthy worker")
        assert '"running"' in commands.check_success(commands.call(site, "status", "--json"))
        commands.check_success(commands.call(site, "enqueue", "embed", "a question"))
        source, sink = tmp_path / "records.jsonl", tmp_path / "vectors.jsonl"
        source.write_text('{"id": 1, "text": "a record"}\n')
        for options in (["--dry-run"], []):
            call = ("reembed", str(source), str(sink), *options)
            commands.check_success(commands.call(site, *call, HEADRACE_STATE_DIR=str(tmp_path / "state")))
        commands.check_success(commands.call(guarded.site("worker"), "health", "embed"))


def test_every_granted_command_is_sent(
    guarded: Guarded, start: Callable[..., PoolProgram], record: Record, tmp_path: Path
) -> None:
    used = {"producer": _used_by_a_producer(guarded), "reembed": _used_by_detached_runs(guarded, tmp_path)}
    guarded.site("operator").client.xadd(guarded.site("operator").queue().lane(Lane.BULK), {"no": "job"})
    asyncio.run(_leave_rows_behind(guarded))
    used["worker"] = _used_by_a_worker(guarded, start, record)
    used["operator"] = _used_by_an_operator(guarded, tmp_path)

    assert {user: guarded.granted(user) - used[user] - UNSENT[user] for user in USERS} == {
        user: set() for user in USERS
    }


def _used_by_a_producer(guarded: Guarded) -> set[str]:
    guarded.admin.config_resetstat()
    _ask_all(guarded, "producer")
    _cache_a_search(guarded, "producer")
    return guarded.used()


def _ask_all(guarded: Guarded, user: str) -> None:
    """Send all that the work of a producer takes."""
    with guarded.site(user).producer() as producer:
        for _ in range(2):  # the second time it joins a row in flight
            with pytest.raises(ResultTimeout):
                producer.embed("nobody is there", timeout_s=LATE_S)
            with pytest.raises(ResultTimeout):
                list(producer.iter_embed(["nor for this"], timeout_s=LATE_S))
        producer.cached(TEXTS)
        producer.queue_states()


def _cache_a_search(guarded: Guarded, user: str) -> None:
    """Send all that a search sends for its cache."""
    keys = SearchKeys(user_id=7, namespace=guarded.namespace)
    begin, write = BeginGeneration(keys, b"token"), WriteCache(keys, "digest", b"value", 1_763_900_000_000)
    with guarded.client(user) as client:
        for effect in (ReadCache(keys, "digest"), begin, write, Forget(keys)):
            search_cache.perform(client, effect)


def _used_by_detached_runs(guarded: Guarded, folder: Path) -> set[str]:
    orders = {"good": ["finish"], "bad": ["configuration"], "long": ["hold", "finish"]}
    for name, steps in orders.items():
        detached.detach_script(guarded.site("operator"), folder / f"{name}.json", *steps)
    guarded.admin.config_resetstat()
    _ask_all(guarded, "reembed")
    detached.take_over(guarded.site("reembed"), folder, folder / "long.json")
    return guarded.used()


async def _leave_rows_behind(guarded: Guarded) -> None:
    """Put rows on a lane that have time left, and nobody who asks for them."""
    async with guarded.site("producer").async_producer() as producer:
        asked = asyncio.create_task(producer.embed_many([HELD, *TEXTS]))
        while guarded.site("producer").waiting() <= len(TEXTS):
            await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked


def _used_by_a_worker(guarded: Guarded, start: Callable[..., PoolProgram], record: Record) -> set[str]:
    guarded.admin.script_flush()
    guarded.admin.config_resetstat()
    pool = start(HEADRACE_BATCH_TOKENS="1")
    wait_until(lambda: record.holders(HELD), what="the row in hand")
    pool.await_healthy()  # asks as the worker, like the health check of a container
    pool.terminate()
    wait_until(lambda: record.signals() == 1, what="the worker's SIGTERM")
    record.release()
    assert pool.wait() == 0
    return guarded.used()


def _used_by_an_operator(guarded: Guarded, folder: Path) -> set[str]:
    guarded.load_scripts()
    site = guarded.site("operator")
    abandoned = detached.abandon(site, folder, guarded.site("reembed"))
    guarded.admin.config_resetstat()
    for job_id in (abandoned, detached.detach_script(site, folder / "queued.json", "finish")):
        commands.check_success(detached.call(site, "cancel", job_id))
    detached.look_at_all(site)
    commands.check_success(commands.call(site, "status"))
    with site.producer() as producer:
        producer.cached(TEXTS)
        for _ in range(2):  # the second time it joins a row in flight
            with pytest.raises(ResultTimeout):
                producer.embed("nor for this", timeout_s=LATE_S)
    commands.call(site, "enqueue", "embed", "nobody is there", "--timeout-s", str(LATE_S))
    letters = json.loads(commands.check_success(commands.call(site, "dead", "list", "embed", "--json")))
    commands.check_success(commands.call(site, "dead", "show", "embed", letters["id"]))
    commands.check_success(commands.call(site, "dead", "retry", "embed", "--all"))
    commands.check_success(commands.call(site, "dead", "purge", "embed", letters["id"]))
    commands.check_success(commands.call(site, "dead", "purge", "embed", "--all", "--yes"))
    with guarded.client("operator") as client:
        client.ping()
    _cache_a_search(guarded, "operator")
    return guarded.used()


def _age_ms(guarded: Guarded) -> float:
    """How old the newest job is, by the server's clock."""
    added_ms = int(guarded.site("producer").last_id(Lane.INTERACTIVE).split(b"-")[0])
    seconds, microseconds = guarded.admin.time()
    return int(seconds) * 1000 + int(microseconds) / 1000 - added_ms
