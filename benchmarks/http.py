"""The queue against the HTTP service that it replaces: Flask and gunicorn, 2 workers x 2 threads, JSON."""

import http
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import benchmarks.http_service  # noqa: F401 - so that a missing Flask is told before anything starts
from benchmarks.arrangement import embed_pool, told
from benchmarks.corpus import texts
from benchmarks.finding import Finding, in_turns
from benchmarks.memory_of import watching
from benchmarks.site import site
from producer import Producer
from producer.orphans import end_with_parent

_CLIENTS = 8
_SINGLES = 160
_ROUNDS = 3
_BATCH = 256
_ANSWER_S = 280.0
_GUNICORN = (
    "--workers=2",
    "--threads=2",
    "--worker-class=gthread",
    "--keep-alive=75",
    "--timeout=300",
    "--log-level=error",
)
_APPLICATION = "benchmarks.http_service:create_app()"
_READY_S = 60.0
_SERVICE = "Flask + gunicorn, 2 workers x 2 threads"


def run(*, scale: float = 1.0) -> list[Finding]:
    """Measure target 3: single texts of 8 clients, 256 texts in one call, and the memory that it takes."""
    with (
        site() as place,
        place.pool("embed", **embed_pool()) as pool,
        place.producer() as producer,
        gunicorn() as service,
    ):
        serving = [pool.pid, place.server.pid]
        return [_singles(producer, service, scale), *_batches(producer, service, serving, scale)]


class Service:
    """The running service, called as a careful client does: each thread keeps its connection."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid
        self._local = threading.local()

    def embed(self, text: str) -> list[float]:
        vector: list[float] = self._post("/embed", {"text": text})["embedding"]
        return vector

    def embed_batch(self, batch: Sequence[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._post("/embed/batch", {"texts": list(batch)})["embeddings"]
        return vectors

    def _post(self, path: str, body: object) -> Any:
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_S)
        connection: http.client.HTTPConnection = self._local.connection
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        if response.status != http.HTTPStatus.OK:
            raise RuntimeError(f"the service answered {path} with status {response.status}")
        return json.loads(answer)


@contextmanager
def gunicorn() -> Iterator[Service]:
    """Run the service on a free port of loopback until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *_GUNICORN, f"--bind=127.0.0.1:{port}", _APPLICATION],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call; the child runs no Python after it
    )
    try:
        _wait_ready(process, port)
        yield Service(port, process.pid)
    finally:
        process.terminate()
        process.wait()


def _wait_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=_READY_S):
            return
        time.sleep(0.05)
    raise RuntimeError(f"gunicorn did not come up (exit code {process.poll()})")


def _singles(producer: Producer, service: Service, scale: float) -> Finding:
    rows = max(_CLIENTS, round(_SINGLES * scale))
    drawn = texts((1 + _ROUNDS) * rows)  # at once: only texts of one call are all distinct
    rounds = count(1), count(1)
    clients = ThreadPoolExecutor(_CLIENTS)

    def rate(embed: Callable[[str], object], number: int) -> float:
        batch = drawn[number * rows : (number + 1) * rows]
        started = time.perf_counter()
        list(clients.map(embed, batch))
        return len(batch) / (time.perf_counter() - started)

    with clients:
        rate(producer.embed, 0)  # connects everybody, on both sides
        rate(service.embed, 0)
        pair = in_turns(
            lambda: rate(producer.embed, next(rounds[0])), lambda: rate(service.embed, next(rounds[1])), rounds=_ROUNDS
        )
    return Finding(
        target="3",
        what=f"single texts of {_CLIENTS} clients (the queue, {told(embed_pool())})",
        against=_SERVICE,
        measured=pair.ratio,
        bound=1.2,
        ours=f"{pair.ours:.1f} rows/s",
        theirs=f"{pair.theirs:.1f} rows/s",
        note="rows of mixed lengths are padded when they wait together, and a process may hold what another could run",
    )


def _batches(producer: Producer, service: Service, serving: list[int], scale: float) -> list[Finding]:
    """One call with all the texts on each side, and the highest memory of who serves it while it runs."""
    batch = texts(max(8, round(_BATCH * scale)), seed=-1)
    with watching(serving) as mine:
        ours = _rate(producer.embed_many, batch)
    with watching([service.pid]) as others:
        theirs = _rate(service.embed_batch, batch)
    what = f"{len(batch)} texts in one call (the queue, {told(embed_pool())})"
    return [
        Finding(
            target="3",
            what=what,
            against=_SERVICE,
            measured=ours / theirs,
            bound=5.0,
            ours=f"{ours:.1f} rows/s",
            theirs=f"{theirs:.1f} rows/s",
            note="one measurement of each; the more alike the lengths in a call, the less is saved by sorting them",
        ),
        Finding(
            target="3",
            what=f"peak memory meanwhile, Redis included (the queue, {told(embed_pool())})",
            against=f"{_SERVICE}, without a Redis",
            measured=mine.mib / others.mib,
            bound=0.1,
            at_least=False,
            ours=f"{mine.mib:.0f} MiB",
            theirs=f"{others.mib:.0f} MiB",
            note="each process holds its own weights (about 100 MiB), libraries and buffers of onnxruntime",
        ),
    ]


def _rate(embed: Callable[[Sequence[str]], object], batch: Sequence[str]) -> float:
    started = time.perf_counter()
    embed(batch)
    return len(batch) / (time.perf_counter() - started)
