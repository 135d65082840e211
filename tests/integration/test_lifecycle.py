"""Pools of real processes: how they stop, crash and recover; no job is lost on the way."""

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from console.redis_server import RedisServer
from producer.results import Vector
from producer.wire.keys import Lane
from tests.conftest import StartPool
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import HOLD, Record, vectors_of
from tests.integration.harness.processes import is_alive, session_members
from tests.integration.harness.site import Site, passage
from tests.integration.harness.waiting import wait_until

Answer = Future[Vector]

HELD = f"{HOLD}first"
TEXTS = [HELD, *(f"row {number}" for number in range(30))]
ROW_BY_ROW = {"HEADRACE_BATCH_TOKENS": "1"}
NEVER = "10000"
"""A lease or a grace period, in seconds, that cannot be what ends a test's wait."""


@pytest.fixture
def record(solo: Site) -> Record:
    """The work of the fake pools."""
    return Record(solo.client, solo.namespace)


@pytest.fixture
def answer(solo: Site) -> Iterator[Future[Vector]]:
    """A call that waits in the background: TEXTS are on the stream, and no worker is there yet."""
    with solo.producer() as producer, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(producer.embed_many, TEXTS)
        wait_until(lambda: solo.waiting() == len(TEXTS), what="a queue")
        yield answer


def test_sigterm_finishes_the_batch_in_hand_and_hands_the_rest_back(
    solo: Site, record: Record, answer: Answer, start_pool: StartPool
) -> None:
    pool = start_pool(solo, HEADRACE_LEASE_S=NEVER, HEADRACE_GRACE_S=NEVER, **ROW_BY_ROW)
    wait_until(lambda: record.texts() == [HELD], what="the first batch in hand")
    pool.terminate()
    wait_until(lambda: record.signals() == 1, what="the worker's SIGTERM")
    record.release()

    assert pool.wait() == 0
    assert record.texts() == [HELD], "no other batch is begun"
    assert solo.client.exists(solo.queue().reply(passage(HELD).digest))
    assert solo.waiting() == len(TEXTS) - 1, "the first job is acknowledged and deleted, no other"
    with Engine(solo, name="another/0", lease_s=float(NEVER)) as other:
        assert np.array_equal(answer.result(60), vectors_of(TEXTS))
        solo.await_empty()
    assert sorted(map(str, other.model.computed)) == sorted(TEXTS[1:])


def test_what_a_stopped_pool_leaves_the_next_one_finishes(
    solo: Site, record: Record, answer: Answer, start_pool: StartPool
) -> None:
    first = start_pool(solo, HEADRACE_LEASE_S=NEVER, HEADRACE_GRACE_S=NEVER, HEADRACE_PROCESSES="2", **ROW_BY_ROW)
    wait_until(lambda: record.holders(HELD), what="the first batch in hand")
    first.terminate()
    wait_until(lambda: record.signals() == 1, what="the worker's SIGTERM")
    record.release()
    assert first.wait() == 0

    start_pool(solo, HEADRACE_LEASE_S=NEVER)
    assert np.array_equal(answer.result(60), vectors_of(TEXTS))
    solo.await_empty()
    assert sorted(record.texts()) == sorted(TEXTS), "nothing is computed twice"


def test_a_second_sigterm_leaves_at_once(solo: Site, record: Record, answer: Answer, start_pool: StartPool) -> None:
    pool = start_pool(solo, HEADRACE_GRACE_S=NEVER)
    (worker,) = wait_until(lambda: record.holders(HELD), what="the first batch in hand")
    pool.terminate()
    wait_until(lambda: record.signals() == 1, what="the worker's SIGTERM")

    def asked_again() -> bool:
        if pool.running:
            pool.terminate()  # right behind another it is the same request, so it may take more than one
        return not pool.running

    wait_until(asked_again, what="the end of the pool")
    pool.wait()

    assert not is_alive(worker)
    assert solo.waiting() == len(TEXTS), "the batch in hand was not finished"
    record.release()
    start_pool(solo)
    assert np.array_equal(answer.result(60), vectors_of(TEXTS))
    solo.await_empty()


def test_a_killed_worker_loses_nothing(solo: Site, record: Record, answer: Answer, start_pool: StartPool) -> None:
    pool = start_pool(solo, HEADRACE_PROCESSES="2", **ROW_BY_ROW)
    (victim,) = wait_until(lambda: record.holders(HELD), what="the first batch in hand")
    before = pool.await_healthy(2)
    os.kill(victim, signal.SIGKILL)
    record.release()

    assert np.array_equal(answer.result(60), vectors_of(TEXTS))
    solo.await_empty()
    after = pool.await_healthy(2)
    assert after.keys() == before.keys()
    assert victim in before.values()
    assert victim not in after.values()
    assert record.holders(HELD)[0] == victim
    assert set(record.holders(HELD)[1:]) <= {*before.values(), *after.values()} - {victim}


def test_a_killed_pool_is_continued_by_one_with_its_names(
    solo: Site, record: Record, answer: Answer, start_pool: StartPool
) -> None:
    settings = {"HEADRACE_LEASE_S": NEVER, **ROW_BY_ROW}
    first = start_pool(solo, **settings)
    wait_until(lambda: record.holders(HELD), what="the first batch in hand")
    (name, worker), *_ = first.await_healthy().items()
    first.kill_all()
    _await_oblivion(solo, worker)
    assert solo.pending() > 0, "the dead hold jobs"
    record.release()

    second = start_pool(solo, **settings)
    assert np.array_equal(answer.result(60), vectors_of(TEXTS))
    assert second.await_healthy().keys() == {name}
    solo.await_empty()


def test_workers_end_when_their_pool_is_killed(solo: Site, start_pool: StartPool) -> None:
    pool = start_pool(solo, HEADRACE_PROCESSES="2")
    workers = pool.await_healthy(2).values()
    pool.kill()
    wait_until(lambda: not any(is_alive(worker) for worker in workers), what="the end of the orphans")
    wait_until(lambda: not session_members(pool.pid), what="the end of everything the pool started")


def test_a_worker_that_ends_takes_its_heartbeat_away(solo: Site, start_pool: StartPool) -> None:
    pool = start_pool(solo, HEADRACE_PROCESSES="2")
    pool.await_healthy(2)
    pool.stop()
    with solo.producer() as producer:
        state = producer.queue_state("embed")
    assert state.workers == ()
    assert state.card is not None, "the card outlives the pool as its cached results do"


def test_two_pools_on_one_host_have_names_of_their_own(solo: Site, start_pool: StartPool) -> None:
    host = socket.gethostname()
    first = start_pool(solo, HEADRACE_PROCESSES="2")
    assert first.await_healthy(2).keys() == {f"{host}/0", f"{host}/1"}
    second = start_pool(solo, HEADRACE_PROCESSES="2")
    assert second.await_healthy(2).keys() == {f"{host}/2", f"{host}/3"}
    first.stop()
    third = start_pool(solo)
    assert third.await_healthy().keys() == {f"{host}/0"}, "a name that is free again is taken again"


def test_two_pools_started_together_have_names_of_their_own(solo: Site, start_pool: StartPool) -> None:
    one, other = start_pool(solo), start_pool(solo)
    names = [*one.await_healthy(), *other.await_healthy()]
    assert len(set(names)) == 2


def test_flushall_under_a_running_pool(own_site: Site, start_pool: StartPool) -> None:
    pool = start_pool(own_site, **ROW_BY_ROW)
    workers = pool.await_healthy()
    record = Record(own_site.client, own_site.namespace)
    texts = [HELD, *(f"row {number}" for number in range(150))]
    with own_site.producer() as producer, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(producer.embed_many, texts)
        wait_until(
            lambda: record.holders(HELD) and own_site.waiting() == len(texts), what="a worker busy with the first"
        )
        own_site.client.flushall()
        record.release()
        assert np.array_equal(answer.result(60), vectors_of(texts)), "the rows nobody had read are enqueued again"
        own_site.await_empty()

        own_site.client.flushall()
        later = [f"later {number}" for number in range(20)]
        assert np.array_equal(producer.embed_many(later), vectors_of(later))
        assert len(list(producer.iter_embed(later))) == 20
        wait_until(lambda: producer.queue_state("embed").card, what="the model card again")
    assert pool.await_healthy() == workers, "no worker was restarted"


def test_a_pool_resumes_when_its_redis_is_back(own_server: RedisServer, own_site: Site, start_pool: StartPool) -> None:
    pool = start_pool(own_site, HEADRACE_PROCESSES="2")
    workers = pool.await_healthy(2)
    with own_site.producer() as producer:
        producer.embed_many(TEXTS[1:])
        own_server.kill()
        wait_until(lambda: pool.stderr.count("Redis does not serve") >= 2, what="both workers without Redis")
        own_server.start()
        assert np.array_equal(producer.embed_many(TEXTS[1:]), vectors_of(TEXTS[1:]))
        own_site.await_empty()
        assert all(own_site.pending(lane) == 0 for lane in Lane)
    assert pool.await_healthy(2) == workers, "no worker was restarted"


def _await_oblivion(site: Site, worker: int) -> None:
    """Wait until a killed worker no longer counts as running: its pid is free, or its last heartbeat old enough."""
    with site.producer() as producer:
        wait_until(
            lambda: (
                not Path(f"/proc/{worker}").exists()
                or not any(state.alive for state in producer.queue_state("embed").workers)
            ),
            what="the end of a killed worker's claim to its name",
        )
