"""Fixtures of the tests with real models: one namespace that an embed and a rerank pool serve, for the session."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from producer.wire.models import OFFLINE, TASKS, TaskName
from tests.conftest import make_site, pool_starter
from tests.integration.harness.processes import PoolProgram
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
