"""A master, a replica and Sentinels as real processes on free ports of loopback, for tests of failover."""

import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.exceptions import RedisError

from console.redis_server import RedisServer
from producer.orphans import end_with_parent
from tests.integration.harness.ports import free_port
from tests.integration.harness.waiting import wait_until

SERVICE = "headrace"

DOWN_AFTER_MS = 2000
"""A Sentinel pings once a second: with less than that it takes every master for dead that it has just come to know."""


class SentinelProcess:
    """One Sentinel that watches a master on loopback; `lines` are added to its configuration. A context manager."""

    def __init__(
        self,
        program: Path,
        *,
        master_port: int,
        quorum: int = 1,
        down_after_ms: int = DOWN_AFTER_MS,
        lines: Sequence[str] = (),
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-sentinel-")
        self.port = free_port()
        self._program = program
        self._configuration = Path(self._folder.name, "sentinel.conf")
        configuration = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self._folder.name}",
            f"logfile {self._folder.name}/log",
            f"sentinel monitor {SERVICE} 127.0.0.1 {master_port} {quorum}",
            f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}",
            f"sentinel failover-timeout {SERVICE} {4 * down_after_ms}",
            *lines,
        ]
        self._configuration.write_text("\n".join(configuration) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, without waiting for it; after `stop` with what it has learned."""
        self._process = subprocess.Popen(
            [str(self._program), str(self._configuration), "--sentinel"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call; the child runs no Python after it
        )

    def stop(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def log(self) -> str:
        """What it has logged so far."""
        path = Path(self._folder.name, "log")
        return path.read_text() if path.exists() else ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()


class SentinelGroup:
    """A master, its replica and Sentinels that fail over within a few seconds. A context manager.

    Replication is asynchronous: a master that is killed may take its last writes with it. With a password, a server
    that is killed cannot come back.
    """

    def __init__(
        self,
        program: Path,
        *,
        sentinels: int = 3,
        password: str = "",
        sentinel_password: str = "",
        down_after_ms: int = DOWN_AFTER_MS,
    ) -> None:
        self._program = program
        self._count = sentinels
        self._password = password
        self._sentinel_password = sentinel_password
        self._down_after_ms = down_after_ms
        self._stack = ExitStack()
        self.servers: list[RedisServer] = []
        self.sentinels: list[SentinelProcess] = []

    @property
    def login(self) -> str:
        """What stands before the hosts of a URL."""
        return f":{self._password}@" if self._password else ""

    @property
    def hosts(self) -> str:
        """The Sentinels as a URL names them."""
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    @property
    def url(self) -> str:
        """The URL of the master, whichever it is."""
        options = f"?sentinel_password={self._sentinel_password}" if self._sentinel_password else ""
        return f"redis+sentinel://{self.login}{self.hosts}/{SERVICE}/0{options}"

    def start(self) -> None:
        """Start all, and wait until the Sentinels know each other and a replica that is in step."""
        master = self._start_server()
        replica = self._start_server("--replicaof", "127.0.0.1", str(master.port))
        for server in self.servers if self._password else ():
            with redis.Redis(port=server.port) as client:  # afterwards: a server's start waits for an answer without
                client.config_set("masterauth", self._password)
                client.config_set("requirepass", self._password)
        wait_until(lambda: self.info(replica)["master_link_status"] == "up", what="a replica in step")
        lines = [f"sentinel auth-pass {SERVICE} {self._password}"] if self._password else []
        if self._sentinel_password:
            lines += [f"requirepass {self._sentinel_password}", f"sentinel sentinel-pass {self._sentinel_password}"]
        for _ in range(self._count):
            sentinel = SentinelProcess(
                self._program,
                master_port=master.port,
                quorum=self._count // 2 + 1,
                down_after_ms=self._down_after_ms,
                lines=lines,
            )
            self.sentinels.append(self._stack.enter_context(sentinel))
        for sentinel in self.sentinels:
            wait_until(lambda asked=sentinel: self._is_ready(asked), what="a Sentinel that knows all")  # type: ignore[misc]

    def stop(self) -> None:
        """End all."""
        self._stack.close()

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

    @property
    def master_port(self) -> int:
        """The port of the master, as the first Sentinel that runs names it; 0 if none does."""
        for sentinel in self.sentinels:
            with suppress(RedisError, OSError):
                return int(self._ask(sentinel, "MASTER")["port"])
        return 0

    @property
    def master(self) -> RedisServer:
        """The server that the Sentinels name as the master."""
        port = self.master_port
        return next(server for server in self.servers if server.port == port)

    def kill_master(self) -> RedisServer:
        """Kill the master's process with SIGKILL; return its server, which `start` brings back on the same port."""
        killed = self.master
        killed.kill()
        return killed

    def await_failover(self, demoted: RedisServer, timeout_s: float = 60.0) -> RedisServer:
        """Wait until another server than this one is named as the master and takes writes; return it."""

        def promoted() -> RedisServer | None:
            port = self.master_port
            server = next((one for one in self.servers if one.port == port and one is not demoted), None)
            return server if server and self.info(server)["role"] == "master" else None

        return wait_until(promoted, timeout_s, what="another master")

    def restore(self, killed: RedisServer, timeout_s: float = 60.0) -> None:
        """Bring a killed master back, and wait until it is a replica in step that every Sentinel would promote.

        A Sentinel would make it one by itself, after 10 to 20 s in which it takes itself for the master.
        """
        killed.start()
        with self.connect(killed) as client:
            client.replicaof("127.0.0.1", self.master_port)
        for sentinel in self.sentinels:
            wait_until(lambda asked=sentinel: self._is_ready(asked), timeout_s, what="a replica in step")  # type: ignore[misc]

    def connect(self, server: RedisServer) -> redis.Redis:
        """A connection to one of the servers itself."""
        return redis.Redis(port=server.port, password=self._password or None, socket_timeout=5)

    def info(self, server: RedisServer) -> dict[str, Any]:
        """How a server sees its part in the replication."""
        with self.connect(server) as client:
            found: dict[str, Any] = client.info("replication")
            return found

    def _start_server(self, *extra: str) -> RedisServer:
        server = RedisServer(self._program, extra=(*extra, "--repl-diskless-sync-delay", "0"))
        self.servers.append(self._stack.enter_context(server))
        return server

    def _is_ready(self, sentinel: SentinelProcess) -> bool:
        with suppress(RedisError, OSError):
            master = self._ask(sentinel, "MASTER")
            replicas = [dict(zip(*[iter(one)] * 2, strict=True)) for one in self._ask(sentinel, "REPLICAS", raw=True)]
            return (
                master["flags"] == "master"
                and int(master["num-other-sentinels"]) == self._count - 1
                and [(one["flags"], one["master-link-status"]) for one in replicas] == [("slave", "ok")]
            )
        return False

    def _ask(self, sentinel: SentinelProcess, what: str, *, raw: bool = False) -> Any:
        password = self._sentinel_password or None
        with redis.Redis(
            port=sentinel.port, password=password, protocol=2, decode_responses=True, socket_timeout=5
        ) as client:
            answer: Any = client.execute_command("SENTINEL", what, SERVICE)
            return answer if raw else dict(zip(*[iter(answer)] * 2, strict=True))
