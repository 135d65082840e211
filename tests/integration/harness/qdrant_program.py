"""The stand-in for Qdrant's server as a process that tests start, kill and start again on the same folder and port."""

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from qdrant_client import QdrantClient

from producer.qdrant import QdrantAddress, connect
from tests.integration.harness.ports import free_port
from tests.integration.harness.processes import Program
from tests.integration.harness.waiting import wait_until

_MODULE = "tests.integration.harness.qdrant_server"


class QdrantServer:
    """A server on loopback with its points in `folder`; what it has written outlives a kill."""

    def __init__(self, folder: Path, *, api_key: str = "") -> None:
        self._folder = folder
        self.api_key = api_key
        self.port = free_port()
        self._program: Program | None = None
        self._starts = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def url(self, collection: str) -> str:
        """The URL of a collection or an alias, as a user writes it."""
        return f"qdrant://127.0.0.1:{self.port}/{collection}"

    def address(self, collection: str) -> QdrantAddress:
        return QdrantAddress.parse(self.url(collection))

    def client(self) -> QdrantClient:
        """A client of the test's own, which it closes."""
        return connect(self.address("any"), self.api_key)

    def start(self, *options: str) -> None:
        """Start it and wait until it serves; `options` are the server's, such as `--dies-at-upsert 3`."""
        self._starts += 1
        command = [sys.executable, "-m", _MODULE, "--path", str(self._folder / "store"), "--port", str(self.port)]
        environ = {**os.environ, "QDRANT__SERVICE__API_KEY": self.api_key}
        program = Program([*command, *options], environ, self._folder / f"start-{self._starts}")
        self._program = program

        def serving() -> str:
            assert program.running, f"the server has ended:\n{program.stderr}"
            return program.stdout

        wait_until(serving, 60, what="the stand-in for Qdrant's server")

    @property
    def running(self) -> bool:
        return self._program is not None and self._program.running

    def kill(self) -> None:
        """Send SIGKILL."""
        assert self._program
        self._program.kill()

    def restart(self, *options: str) -> None:
        """Start it anew on the same folder and port, after its end."""
        self.stop()
        self.start(*options)

    def stop(self) -> None:
        """End it, whatever it does."""
        if self._program:
            self._program.kill_all()
