"""Everything on one machine: an embedded Redis and both pools, started and stopped in order."""

import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from console.children import start_module
from console.redis_server import RedisServer, find_server
from producer.client import Producer
from producer.errors import ConfigurationError, RedisUnavailable
from producer.wire.models import OFFLINE, TASKS, TaskName
from workers.stopping import SignalCount

_POLL_S = 0.1
_CREDENTIALS = ("HEADRACE_REDIS_USER", "HEADRACE_REDIS_PASSWORD", "HEADRACE_REDIS_PASSWORD_FILE")


class Stack:
    """The server and the pools; a context manager. The pools inherit `environ`, with the server's URL in it."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        port: int,
        database: int = 0,
        data_directory: Path | None = None,
        requests: SignalCount | None = None,
    ) -> None:
        self._environ = dict(environ)
        self._server = RedisServer(find_server(environ), port=port, data_directory=data_directory)
        self._database = database
        self._requests = requests or SignalCount()
        offline = all(self._environ.get(name) == OFFLINE for name in ("HEADRACE_EMBED_MODEL", "HEADRACE_RERANK_MODEL"))
        self._advice = "" if offline else "; without a model hub, use the offline models: headrace up --offline"
        self._pools: dict[TaskName, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """Where the server listens."""
        return f"redis://127.0.0.1:{self._server.port}/{self._database}"

    @property
    def environ(self) -> dict[str, str]:
        """The environment of whoever uses it: with its URL, and without credentials, which it would refuse."""
        return {**self._environ, **dict.fromkeys(_CREDENTIALS, ""), "REDIS_URL": self.url}

    def start(self) -> None:
        """Start the server, then both pools; they load their models in the background."""
        self._server.start()
        for task in TASKS:
            self._pools[task] = start_module(f"workers.{task}_worker", self.environ)

    def wait_ready(self, producer: Producer, timeout_s: float) -> None:
        """Wait until both pools have a healthy worker, or somebody asks to stop.

        Raises:
            ConfigurationError: a pool has ended, or is not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        waiting = set(TASKS)
        while waiting and not self._requests.count:
            if time.monotonic() > deadline:
                raise ConfigurationError(f"the {' and '.join(sorted(waiting))} pool was not ready in {timeout_s:g} s")
            self.check()
            waiting = {task for task in waiting if not _ready(producer, task)}
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Raise ConfigurationError if the server or a pool has ended by itself."""
        if not self._server.running:
            raise ConfigurationError("the embedded Redis has ended")
        for task, pool in self._pools.items():
            if pool.poll() is not None:
                raise ConfigurationError(
                    f"the {task} pool has ended with code {pool.returncode}; its reason is above{self._advice}"
                )

    def stop(self) -> None:
        """Let the pools finish their batches, then end the server; a further request to stop ends them at once."""
        asked, told = 1, 0
        while running := [pool for pool in self._pools.values() if pool.poll() is None]:
            if told < max(asked, self._requests.count):
                told = max(asked, self._requests.count)
                for pool in running:
                    pool.send_signal(signal.SIGINT if told > asked else signal.SIGTERM)
            time.sleep(_POLL_S)
        self._server.stop()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _ready(producer: Producer, task: TaskName) -> bool:
    try:
        return any(worker.healthy for worker in producer.queue_state(task).workers)
    except RedisUnavailable:
        return False
