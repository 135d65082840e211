"""Re-embedding goes on where it was ended: by a signal, or by the death of a worker, of Redis or of the store."""

import gzip
import json
import os
import shlex
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import models

from console.redis_server import RedisServer
from producer.bulk.order import Order
from producer.bulk.pipeline import Outcome
from producer.bulk.runs import run_order
from producer.settings import ProducerSettings, StoreSettings
from producer.wire.keys import Lane
from tests.conftest import StartPool
from tests.integration.harness.commands import call, check_one_line, check_success
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import FakeModel, Gate, Input, vector_of
from tests.integration.harness.processes import Program
from tests.integration.harness.qdrant_program import QdrantServer
from tests.integration.harness.reembedding import Reembedding, end_by, points_of, write_records
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

ROWS = 600
WINDOW = 64
BROKEN = "breaks the model"
TOO_LONG = "words " * 50
FLAGS = ("--window", str(WINDOW), "--max-text-bytes", "200")
BATCH_TOKENS = 32
"""Eight rows of four words."""

SOME_BATCHES = 14
"""More than a write takes, far fewer than the run."""

SPOILT: dict[int, object] = {5: " ", 40: BROKEN, 70: TOO_LONG, 71: 7, 500: " "}
REASONS = ["empty_text", "model_failed", "text_too_long", "not_text", "empty_text"]


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Holds the model of `engine`; open at the end, so that a failed test ends."""
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def engine(solo: Site, gate: Gate) -> Iterator[Engine]:
    """A worker behind the gate, whose model fails at one text."""

    def on_batch(batch: Sequence[Input]) -> None:
        gate(batch)
        if BROKEN in batch:
            raise RuntimeError("a kernel failed")

    with Engine(solo, FakeModel(on_batch), batch_tokens=BATCH_TOKENS) as engine, solo.producer() as producer:
        wait_until(lambda: producer.queue_state("embed").card, what="the model card")  # else a run asks for a row first
        yield engine
        gate.open()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Records of which five have no text that can be embedded."""
    return write_records(tmp_path / "source.jsonl", [SPOILT.get(n, f"text of row {n}") for n in range(ROWS)])


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.mark.parametrize(
    ("name", "signals"),
    [
        ("sink.jsonl", (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)),
        ("sink.jsonl.gz", (signal.SIGKILL,)),
        ("sink.parquet", (signal.SIGKILL,)),
    ],
)
def test_an_ended_command_goes_on_to_the_same_file(
    solo: Site, gate: Gate, engine: Engine, source: Path, tmp_path: Path, name: str, signals: Sequence[signal.Signals]
) -> None:
    command, sink = Reembedding(solo, tmp_path / "runs", source, tmp_path / name, *FLAGS), tmp_path / name
    again = [str(source), str(sink), *FLAGS, "--resume"]
    for number in signals:
        before = command.rows
        program = command.start_as(again)
        gate.let(SOME_BATCHES)
        command.await_rows(program, before + 1)
        code = end_by(program, number)
        assert not sink.exists(), "what is half done is not shown"
        if number != signal.SIGKILL:
            assert code == 130
            again = _advice(program)
    gate.open()
    last = command.start_as(again)
    assert last.wait() == 0, last.stderr

    assert [reject["code"] for reject in command.rejects] == REASONS
    computed = [text for text in engine.model.computed if text != BROKEN]
    assert len(computed) == len(set(computed)) == ROWS - len(REASONS), "what is cached does not travel again"
    resumed = _content(sink)
    check_success(call(solo, "reembed", str(source), str(sink), *FLAGS, "--overwrite"))
    assert _content(sink) == resumed, "the same as an undisturbed run's"


def test_a_worker_and_redis_die_and_the_run_goes_on(
    own_server: RedisServer, own_site: Site, start_pool: StartPool, tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    texts = [f"text {number}" for number in range(2 * ROWS)]
    source, sink = write_records(tmp_path / "source.jsonl", texts), tmp_path / "sink.jsonl"
    pool = start_pool(own_site, FAKE_ROW_MS="1", HEADRACE_LEASE_S="1", HEADRACE_PROCESSES="2")
    workers = pool.await_healthy(2)
    command = Reembedding(own_site, tmp_path, source, sink)  # for its checkpoint

    run = _start(own_site, threads, str(source), str(sink))
    _await(run, command, 50)
    os.kill(next(iter(workers.values())), signal.SIGKILL)
    _await(run, command, ROWS)
    own_server.kill()
    own_server.start()

    assert run.result(60).rows == len(texts)
    expected = [{"id": number, "embedding": vector_of(text).tolist()} for number, text in enumerate(texts)]
    assert [json.loads(line) for line in sink.read_text().splitlines()] == expected


def test_a_store_dies_and_comes_back_and_the_run_goes_on(
    solo: Site, gate: Gate, engine: Engine, own_qdrant: QdrantServer, threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    """Both ends are collections of the store that dies."""
    with closing(own_qdrant.client()) as client:
        client.create_collection("old", models.VectorParams(size=3, distance=models.Distance.COSINE))
        points = [
            models.PointStruct(
                id=number, vector=[1.0, 0.0, 0.0], payload={"text": f"text {number}", "user": number % 7}
            )
            for number in range(ROWS)
        ]
        client.upsert("old", points)
    command = Reembedding(solo, tmp_path, own_qdrant.url("old"), own_qdrant.url("new"))
    run = _start(solo, threads, own_qdrant.url("old"), own_qdrant.url("new"))
    gate.let(SOME_BATCHES)
    _await(run, command, 1)
    own_qdrant.kill()
    gate.open()
    own_qdrant.restart()

    assert run.result(60).rows == ROWS
    old, new = (points_of(own_qdrant.address(name)) for name in ("old", "new"))
    assert {i: payload for i, (payload, _) in new.items()} == {i: payload for i, (payload, _) in old.items()}
    # The engine scales vectors to unit length when they come, and not when it loads them.
    for payload, vector in new.values():
        assert np.allclose(_unit(vector), _unit(vector_of(payload["text"])), atol=1e-6)


def test_an_interactive_call_overtakes_the_flood(
    solo: Site, gate: Gate, engine: Engine, tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    source = write_records(tmp_path / "source.jsonl", [f"text {number} of the flood" for number in range(ROWS)])
    run = _start(solo, threads, str(source), str(tmp_path / "sink.jsonl"), window=ROWS)
    wait_until(lambda: gate.arrived and solo.waiting(Lane.BULK) > ROWS // 2, what="the flood")
    with solo.producer() as producer:
        asked = threads.submit(producer.embed, "urgent")
        wait_until(solo.waiting, what="the interactive call")
        gate.let(SOME_BATCHES)
        assert asked.result(60).tolist() == vector_of("urgent").tolist()
    assert solo.waiting(Lane.BULK) > ROWS // 4
    assert not run.done()
    gate.open()
    assert run.result(60).rows == ROWS


def test_more_failures_than_allowed_end_the_run_in_one_line(
    solo: Site, gate: Gate, engine: Engine, source: Path, tmp_path: Path
) -> None:
    gate.open()
    sink = tmp_path / "sink.jsonl"
    done = call(solo, "reembed", str(source), str(sink), *FLAGS, "--max-failures", "3")
    check_one_line(done, "4 of", "rows failed, more than 3 (--max-failures)", "line 6: its text is empty")
    assert not sink.exists()
    told = check_success(call(solo, "reembed", str(source), str(sink), *FLAGS, "--max-failures", "5", "--resume"))
    assert told == ""
    command = Reembedding(solo, tmp_path, source, sink)
    assert [reject["code"] for reject in command.rejects] == REASONS
    assert len(sink.read_text().splitlines()) == ROWS - len(REASONS)


def _start(site: Site, threads: ThreadPoolExecutor, source: str, sink: str, window: int = WINDOW) -> Future[Outcome]:
    """Carry an order out in a thread, as the library does."""
    settings = ProducerSettings(redis_url=site.url, namespace=site.namespace, embed_model=site.model)
    order = Order(source=source, sink=sink, window=window)
    return threads.submit(run_order, order, settings, StoreSettings(state_dir=site.state_dir))


def _await(run: Future[Outcome], command: Reembedding, least: int) -> None:
    """Wait until so many rows are kept, while the run goes on."""
    wait_until(lambda: run.done() or command.rows >= least, what=f"a checkpoint of {least} rows")
    assert not run.done(), run.result()


def _advice(program: Program) -> list[str]:
    """The arguments of the command line that a command says to go on with."""
    lines = [line for line in program.stderr.splitlines() if "rows/s" not in line]
    assert len(lines) == 1, program.stderr
    assert lines[0].startswith("headrace: interrupted; go on with: headrace reembed "), lines
    return shlex.split(lines[0].partition("headrace reembed ")[2])


def _unit(vector: Any) -> Any:
    return np.asarray(vector) / np.linalg.norm(vector)


def _content(path: Path) -> bytes:
    """The bytes of a file; where its gzip members end depends on what was ready when it was written."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
