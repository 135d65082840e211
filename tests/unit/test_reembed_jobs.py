"""Detached jobs without a worker: what an order takes along, which failures are retried, what progress is kept."""

import json
import time
import zlib
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis
from redis.exceptions import ConnectionError

from console.reembed_views import Silence
from producer.bulk import jobs
from producer.bulk.detached import list_jobs
from producer.bulk.job_queue import QUEUE, ReembedJob, ReembedQueue, queue_name
from producer.bulk.order import Order
from producer.bulk.progress import Progress
from producer.connection import connect
from producer.errors import (
    ConfigurationError,
    HeadraceError,
    InvalidRequest,
    ModelNotServed,
    RedisUnavailable,
    ResultTimeout,
    StoreUnavailable,
    VerificationFailed,
)
from producer.settings import ProducerSettings
from tests.unit.fakes import ManualClock
from tests.unit.reembedding import Crash, Fate, MemorySink, MemorySource, records, start

SECRETS = {"redis_password": "pa55word", "cache_key": "a key of 16 characters or more"}
PROGRESS = Progress(
    rows=5, total=10, cached_rows=1, rejected=0, elapsed_s=1.0, rows_per_s=5.0, tokens_per_s=None, eta_s=1.0
)


@pytest.fixture
def server() -> redis.Redis:
    return fakeredis.FakeRedis()


def enqueued(server: redis.Redis, order: Order, **settings: Any) -> ReembedJob:
    job_id = jobs.enqueue(order, ProducerSettings(**settings), server)
    job = ReembedJob.fetch(job_id, server)
    assert isinstance(job, ReembedJob)
    return job


def test_an_order_names_its_ends_from_the_root_and_carries_no_secret(
    server: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    job = enqueued(
        server,
        Order(source="rows.jsonl", sink="qdrant+local:store#new", where=("user_id=42",)),
        redis_url="redis://app:pa55word@away/0",
        embed_model="a model",
        **SECRETS,
    )

    order, carried = job.args
    assert (order["source"], order["sink"]) == (f"{tmp_path}/rows.jsonl", f"qdrant+local:{tmp_path}/store#new")
    assert carried["embed_model"] == "a model"
    stored: dict[bytes, bytes] = server.hgetall(job.key)  # type: ignore[assignment]
    stored[b"data"] = zlib.decompress(stored[b"data"])
    assert json.loads(stored[b"data"])[0] == "producer.bulk.jobs.run"
    for text in ("pa55word", "a key of", "away"):
        assert text.encode() not in b"".join(stored.values())
    assert job.description == f"re-embed {order['source']} into {order['sink']}"
    assert (job.timeout, job.result_ttl, job.failure_ttl) == (7 * 86400, 7 * 86400, 7 * 86400)
    assert (job.retries_left, job.retry_intervals) == (jobs.RETRIES, [0])
    assert ReembedQueue(QUEUE, server).get_job_ids() == [job.id]


@pytest.mark.parametrize(
    ("source", "sink"),
    [
        ("-", "out.jsonl"),
        ("in.jsonl", "-"),
        ("https://user:pa55word@host/rows", "out.jsonl"),
        ("qdrant://user:pa55word@host:6333/rows", "out.jsonl"),
    ],
)
def test_what_cannot_be_detached_is_refused(server: redis.Redis, source: str, sink: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        jobs.enqueue(Order(source=source, sink=sink), ProducerSettings(), server)
    assert "pa55word" not in str(refusal.value)
    assert list_jobs(server, "") == []


@pytest.mark.parametrize("wrong", [{"kind": "foo"}, {"where": ("user_id",)}, {"template": "{name"}], ids=str)
def test_an_order_that_no_worker_can_read_is_refused_at_once(server: redis.Redis, wrong: Any) -> None:
    with pytest.raises((ConfigurationError, InvalidRequest)):
        jobs.enqueue(Order(source="a", sink="b", **wrong), ProducerSettings(), server)
    assert list_jobs(server, "") == []


def test_namespaces_have_queues_of_their_own(server: redis.Redis) -> None:
    enqueued(server, Order(source="a", sink="b"), namespace="acme")

    assert ReembedQueue(queue_name("acme"), server).count == 1
    assert ReembedQueue(queue_name(""), server).count == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StoreUnavailable("away"), True),
        (RedisUnavailable("away"), True),
        (ResultTimeout("late"), True),
        (StoreUnavailable("no", code="store_refused"), False),
        (RedisUnavailable("no", code="redis_refused"), False),
        (ModelNotServed("no pool"), False),
        (ConfigurationError("wrong"), False),
        (InvalidRequest("too many rows failed", code="too_many_failures"), False),
        (VerificationFailed("counts differ"), False),
        (HeadraceError("a defect"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: HeadraceError, expected: bool) -> None:
    assert jobs.may_pass(error) is expected


def test_pauses_grow_and_the_attempts_outlast_a_quarter_of_an_hour() -> None:
    pauses = [jobs.pause_s(failures) for failures in range(jobs.RETRIES)]

    assert pauses[:4] == [1, 2, 4, 8]
    assert max(pauses) == 60
    assert sum(pauses) > 15 * 60


def test_progress_is_kept_every_two_seconds_at_most(server: redis.Redis) -> None:
    job = enqueued(server, Order(source="a", sink="b"))
    now_s = 100.0
    report = jobs._Report(job, clock=lambda: now_s)

    def kept() -> Any:
        return ReembedJob.fetch(job.id, server).meta.get("rows")

    assert kept() is None
    for later_s, rows, expected in [(0, 5, 5), (1.9, 6, 5), (2, 7, 7), (2, 8, 7), (4.1, 9, 9)]:
        now_s = 100.0 + later_s
        report(Progress(**{**PROGRESS.__dict__, "rows": rows}))
        assert kept() == expected
    report.end(rows=10)
    assert kept() == 10


def test_a_redis_that_is_away_stops_no_run(server: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_job: ReembedJob) -> None:
        raise ConnectionError("away")

    job = enqueued(server, Order(source="a", sink="b"))
    monkeypatch.setattr(ReembedJob, "save_meta", fail)

    jobs._Report(job)(PROGRESS)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6380/3",
        "redis://us%40er:pa%2Fss@[::1]:6380/0",
        "redis://:pa%3Ass@host:6379/0",
        "unix://user:secret@/run/redis.sock?db=2",
        "rediss://host:6380/0?ssl_ca_certs=%2Fetc%2Fhosts&ssl_cert_reqs=none",
    ],
)
def test_the_url_of_a_connection_leads_where_the_connection_does(url: str) -> None:
    plain = redis.Redis.from_url(url)
    ours = connect(ProducerSettings(redis_url=jobs.url_of(plain)))

    names = ("host", "port", "db", "username", "password", "path", "ssl_ca_certs", "ssl_cert_reqs")
    expected = {name: plain.connection_pool.connection_kwargs.get(name) or None for name in names}
    found = {name: ours.connection_pool.connection_kwargs.get(name) or None for name in names}
    assert found == expected


def test_a_connection_through_sentinels_has_no_url() -> None:
    with pytest.raises(ConfigurationError, match="set REDIS_URL"):
        jobs.url_of(connect(ProducerSettings(redis_url="redis+sentinel://one,two/service/0")))


@pytest.mark.parametrize("replaced", [True, False], ids=["overwrite", "new"])
def test_later_attempts_go_on_from_what_the_job_began_and_from_nothing_older(tmp_path: Path, replaced: bool) -> None:
    source, folder = MemorySource(records(60)), tmp_path / "state"
    flags: dict[str, Any] = {"window": 8, "overwrite": replaced, "job": "new"}
    if replaced:
        start(source, MemorySink(ordered=True), folder, window=8, job="old")
    sink = MemorySink(ordered=True, fate=Fate(at=40))
    with pytest.raises(Crash):
        start(source, sink, folder, **flags)
    assert 0 < sink.written < 60

    sink.fate = Fate()
    outcome = start(source, sink, folder, **flags)

    assert (outcome.rows, len(sink.rows)) == (60, 60)
    assert outcome.resumed_rows > 0
    assert sink.written <= 60 + 8
    assert start(source, sink, folder, **flags) == outcome.__class__(
        **{**outcome.__dict__, "elapsed_s": 0.0, "resumed_rows": 60}
    )


def test_a_job_that_is_to_replace_does_not_take_an_older_runs_end_for_its_own(tmp_path: Path) -> None:
    source = MemorySource(records(20))
    start(source, MemorySink(ordered=True), tmp_path, job="old")
    sink = MemorySink(ordered=True, fate=Fate(at=0))
    with pytest.raises(Crash):
        start(source, sink, tmp_path, overwrite=True, job="new")
    sink.fate = Fate()

    assert start(source, sink, tmp_path, overwrite=True, job="new").resumed_rows == 0
    assert sink.written == 20


def test_an_abandoned_job_is_told_from_a_running_one(server: redis.Redis) -> None:
    job = enqueued(server, Order(source="a", sink="b"))
    for silent_s, expected in ((0, "started"), (3600, "abandoned")):
        beat = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() - silent_s))
        server.hset(job.key, mapping={"status": "started", "last_heartbeat": beat})
        assert [found.status for found in list_jobs(server, "")] == [expected]


def test_who_watches_is_told_when_a_run_comes_no_further(server: redis.Redis) -> None:
    clock = ManualClock()
    silence = Silence(clock)
    job = enqueued(server, Order(source="a", sink="b"))
    for rows, expected in ((1, ""), (1, "nothing new for 30 s"), (2, "")):
        server.hset(job.key, mapping={"status": "started", "meta": json.dumps({"rows": rows})})
        assert silence.note(list_jobs(server, "")[0]) == expected
        clock.advance(30)
    server.hset(job.key, "status", "queued")
    clock.advance(30)
    assert silence.note(list_jobs(server, "")[0]) == ""


@pytest.mark.parametrize("meta", [b"[1]", b"\x80\x04", b'{"rows": "many", "eta_s": {}, "attempt": null}'])
def test_a_meta_of_another_kind_is_none(server: redis.Redis, meta: bytes) -> None:
    job = enqueued(server, Order(source="a", sink="b"))
    server.hset(job.key, "meta", meta)

    (found,) = list_jobs(server, "")
    assert (found.rows, found.eta_s, found.error) == (0, None, "")
