"""How rows end, on every kind of server: lifetimes of keys, expired jobs, failed rows, full lanes."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import pytest

from producer import QueueFull, ResultTimeout, RowFailed
from producer.wire.keys import Lane
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import FakeModel, Gate, Input, vector_of
from tests.integration.harness.site import Site, passage
from tests.integration.harness.waiting import wait_until

TEXTS = [f"text number {number}" for number in range(50)]
LATE_S = 0.2


def test_results_and_wait_keys_have_lifetimes(site: Site) -> None:
    gate = Gate()
    with Engine(site, FakeModel(gate)), site.producer(timeout_s=40) as producer, ThreadPoolExecutor(1) as threads:
        asked = threads.submit(producer.embed_many, TEXTS)
        wait_until(lambda: len(site.wait_keys()) == 50, what="a wait key for each row")
        assert all(0 < site.client.pttl(key) <= 41_000 for key in site.wait_keys())
        gate.open()
        asked.result(30)
        site.await_empty()
    ttls = [site.client.ttl(site.queue().reply(passage(text).digest)) for text in TEXTS]
    assert all(86_000 < ttl <= 86_400 for ttl in ttls)


def test_expired_jobs_are_dropped_and_counted(site: Site) -> None:
    with site.producer() as producer:
        with pytest.raises(ResultTimeout):
            producer.embed_many(TEXTS[:3], timeout_s=LATE_S)
        _await_age(site, LATE_S)
        with Engine(site) as engine:
            site.await_empty()
    assert engine.model.computed == []
    assert site.counters()["expired"] == 3


def test_an_expired_job_runs_if_a_later_caller_waits(site: Site) -> None:
    with site.producer() as hasty, site.producer() as patient, ThreadPoolExecutor(1) as threads:
        with pytest.raises(ResultTimeout):
            hasty.embed("wanted", "passage", timeout_s=LATE_S)
        last = site.last_id(Lane.INTERACTIVE)
        asked = threads.submit(patient.embed, "wanted", "passage")
        wait_until(lambda: len(site.waiters(passage("wanted"))) == 3, what="a second waiter")
        _await_age(site, LATE_S)
        with Engine(site) as engine:
            assert np.array_equal(asked.result(30), vector_of("wanted"))
        assert site.last_id(Lane.INTERACTIVE) == last, "the second caller has added no job"
    assert engine.model.computed == ["wanted"]
    assert "expired" not in site.counters()


def test_a_bad_row_fails_alone_with_its_code(site: Site) -> None:
    with Engine(site, FakeModel(Fail("bad", times=100))) as engine, site.producer() as producer:
        with pytest.raises(RowFailed) as failure:
            producer.embed_many(["good", "bad", "better"])
        assert failure.value.code == "model_failed"
        assert "bad" not in str(failure.value).split(), "what the model says may quote the text"
        assert all(producer.embed_result(["good", "better"]).cached)
        assert producer.cached(["good", "better"]) == [True, True]
        assert producer.queue_state("embed").dead == 1
        site.await_empty()
        assert site.client.ttl(site.queue().reply(passage("bad").digest)) <= 60
    assert sorted(map(str, engine.model.computed)) == ["better", "good"]


def test_a_failed_row_can_be_asked_again(site: Site) -> None:
    with Engine(site, FakeModel(Fail("flaky", times=2))), site.producer() as producer:
        for _ in range(2):
            with pytest.raises(RowFailed):
                producer.embed("flaky", "passage")
        assert np.array_equal(producer.embed("flaky", "passage"), vector_of("flaky"))


def test_a_full_lane_takes_nothing(site: Site) -> None:
    with site.producer(lane_limit=3) as producer:
        with pytest.raises(QueueFull, match="the limit is 3"):
            producer.embed_many(TEXTS[:4])
        assert site.waiting() == 0
        assert site.wait_keys() == []


def _await_age(site: Site, age_s: float) -> None:
    """Wait until the newest job is older than its budget, by the server's clock."""
    added_ms = int(site.last_id(Lane.INTERACTIVE).split(b"-")[0])

    def old() -> bool:
        seconds, microseconds = site.client.time()
        return int(seconds) * 1000 + int(microseconds) / 1000 - added_ms > age_s * 1000 + 1

    wait_until(old, what="the end of the time budget")


class Fail:
    """A model's fault: raises for one text, the first few times it is run alone or in company."""

    def __init__(self, text: str, *, times: int) -> None:
        self._text = text
        self._times = times
        self._seen = count()

    def __call__(self, batch: Sequence[Input]) -> None:
        if self._text in batch and next(self._seen) < self._times:
            raise ValueError(f"cannot run {self._text}")


def test_a_failure_or_rubbish_is_not_called_cached(site: Site) -> None:
    def fail(_batch: object) -> None:
        raise ValueError("no")

    with Engine(site, FakeModel(fail)), site.producer() as producer:
        with pytest.raises(RowFailed):
            producer.embed("bad", "passage")
        site.client.set(site.queue().reply(passage("rubbish").digest), b"rubbish")
        assert producer.cached(["bad", "rubbish", "missing"]) == [False, False, False]
    with Engine(site), site.producer() as producer:
        producer.embed("bad", "passage")
        assert producer.cached(["bad"]) == [True]
