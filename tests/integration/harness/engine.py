"""A worker's engine in a thread of the test, with a fake model: all of a worker process but the process."""

import threading
from types import TracebackType
from typing import Any, Self

import redis

from producer.wire.models import TaskName
from tests.integration.harness.fake_model import FakeModel, describe
from tests.integration.harness.site import Site
from workers.process import Place, _work
from workers.settings import WorkerSettings
from workers.vitals import Vitals


class Engine:
    """Serves a site's queue while its block lasts; keywords are worker settings."""

    def __init__(
        self,
        site: Site,
        model: FakeModel | None = None,
        *,
        task: TaskName = "embed",
        name: str = "engine/0",
        **settings: Any,
    ) -> None:
        self.model = model or FakeModel()
        self._site = site
        self._stopping = threading.Event()
        models = {"embed_model": site.model, "rerank_model": site.model}
        worker = WorkerSettings(
            **{"redis_url": site.url, "namespace": site.namespace, "threads": 1, **models, **settings}
        )
        loaded = describe(task, self.model, site.model)
        place = Place(number=0, name=name, vitals=Vitals())
        self._thread = threading.Thread(
            target=_work,
            args=(task, lambda _settings: loaded, worker, place),
            kwargs={"stopping": self._stopping, "serving": threading.Event()},
            name=f"engine-{name}",
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        while self._thread.is_alive():
            _wake(self._site.client)
            self._thread.join(timeout=0.05)


def _wake(client: redis.Redis) -> None:
    """Cut blocking reads short, which would otherwise last a second."""
    try:
        clients: list[dict[str, str]] = client.client_list()
        for other in clients:
            if other["cmd"] == "xreadgroup" and "b" in other["flags"]:
                client.client_unblock(int(other["id"]))
    except (redis.RedisError, OSError):
        return  # a server that is away blocks nobody
