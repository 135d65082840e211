"""A private Redis and real pools for a benchmark, started and ended by their own handles."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis

from console.redis_server import RedisServer, find_server
from producer import Producer
from producer.orphans import end_with_parent
from producer.wire.models import OFFLINE, TaskName

_READY_S = 180.0
_POLL_S = 0.05


@dataclass(frozen=True, kw_only=True)
class Site:
    """The server's address; makes clients, producers and pools for it."""

    server: RedisServer
    models: Mapping[str, str] = field(
        default_factory=lambda: {"HEADRACE_EMBED_MODEL": OFFLINE, "HEADRACE_RERANK_MODEL": OFFLINE}
    )

    @property
    def url(self) -> str:
        return self.server.url

    def client(self) -> redis.Redis:
        """A plain redis-py client, as any user would make one."""
        return redis.Redis.from_url(self.url)

    def producer(self, **settings: Any) -> Producer:
        """A producer for this site's models; keywords are fields of `ProducerSettings`."""
        names = {
            "embed_model": self.models["HEADRACE_EMBED_MODEL"],
            "rerank_model": self.models["HEADRACE_RERANK_MODEL"],
        }
        return Producer.from_url(self.url, **{**names, **settings})

    @contextmanager
    def pool(self, task: TaskName, *, module: str = "", **environ: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run `python -m workers.<task>_worker` (or another module) until the block ends, from when it is ready."""
        settings = {**os.environ, **self.models, **environ, "REDIS_URL": self.url, "HEADRACE_LOG_LEVEL": "error"}
        process = subprocess.Popen(
            [sys.executable, "-m", module or f"workers.{task}_worker"],
            env=settings,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call; the child runs no Python after it
        )
        try:
            self._wait_ready(task, process, int(environ.get("HEADRACE_PROCESSES", "1")))
            yield process
        finally:
            process.terminate()
            process.wait()

    def _wait_ready(self, task: TaskName, process: subprocess.Popen[bytes], processes: int) -> None:
        deadline = time.monotonic() + _READY_S
        with self.producer() as producer:
            while sum(worker.healthy for worker in producer.queue_state(task).workers) < processes:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the {task} pool did not come up (exit code {process.poll()})")
                time.sleep(_POLL_S)


@contextmanager
def site(**models: str) -> Iterator[Site]:
    """Start the embedded Redis on a free port of loopback; `models` replaces the offline models' variables."""
    with RedisServer(find_server(os.environ)) as server:
        default = {"HEADRACE_EMBED_MODEL": OFFLINE, "HEADRACE_RERANK_MODEL": OFFLINE}
        yield Site(server=server, models={**default, **models})
