"""One Redis and one namespace of it: what a test asks, and how it looks into the queues."""

import os
from dataclasses import dataclass
from typing import Any

import redis

from producer import AsyncProducer, Producer
from producer.wire.codec import encode_message
from producer.wire.keys import GROUP, Kind, Lane, QueueKeys
from producer.wire.messages import Heartbeat, Row
from producer.wire.models import TaskName, resolve
from tests.integration.harness.waiting import wait_until

FAKE = "fake"


@dataclass(frozen=True, kw_only=True)
class Site:
    """A namespace on a running server; `client` is the test's own connection, `model` serves both tasks."""

    url: str
    namespace: str
    client: redis.Redis
    model: str = FAKE
    state_dir: str = "/dev/null"
    """Where runs keep checkpoints: where no site has one of its own, they fail, and never touch the developer's."""

    def producer(self, **settings: Any) -> Producer:
        """A producer for this namespace; keywords are settings."""
        return Producer.from_url(**{**self._settings(), **settings})

    def async_producer(self, **settings: Any) -> AsyncProducer:
        """The same for asyncio."""
        return AsyncProducer.from_url(**{**self._settings(), **settings})

    def environ(self, **more: str) -> dict[str, str]:
        """The environment of a program that shall use this namespace; the developer's own settings are left out."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        own = {
            "REDIS_URL": self.url,
            "HEADRACE_NAMESPACE": self.namespace,
            "HEADRACE_EMBED_MODEL": self.model,
            "HEADRACE_RERANK_MODEL": self.model,
            "HEADRACE_STATE_DIR": self.state_dir,
        }
        return {**inherited, **own, **more}

    def queue(self, task: TaskName = "embed") -> QueueKeys:
        """The keys of the task's queue."""
        return QueueKeys.of(resolve(task, self.model), self.namespace)

    def waiting(self, lane: Lane = Lane.INTERACTIVE, task: TaskName = "embed") -> int:
        """How many entries are on the lane, read or not."""
        return int(self.client.xlen(self.queue(task).lane(lane)))

    def last_id(self, lane: Lane, task: TaskName = "embed") -> bytes:
        """The id of the last entry ever added to the lane; `entries-added` is not there before Redis 7."""
        info: Any = self.client.xinfo_stream(self.queue(task).lane(lane))
        return bytes(info["last-generated-id"])

    def pending(self, lane: Lane = Lane.INTERACTIVE, task: TaskName = "embed") -> int:
        """How many entries some worker has read and not acknowledged."""
        summary: Any = self.client.xpending(self.queue(task).lane(lane), GROUP)
        return int(summary["pending"])

    def waiters(self, row: Row, task: TaskName = "embed") -> dict[bytes, bytes]:
        """What the wait key of a row holds."""
        held: Any = self.client.hgetall(self.queue(task).wait(row.digest))
        return dict(held)

    def wait_keys(self, task: TaskName = "embed") -> list[str]:
        """The wait keys that are there."""
        return [key.decode() for key in self.client.scan_iter(self.queue(task).wait(b"") + "*", count=1000)]

    def await_empty(self, task: TaskName = "embed") -> None:
        """Wait until nothing is left: no entry on a lane, none pending, no wait key."""
        for lane in Lane:
            wait_until(lambda lane=lane: self.waiting(lane, task) == 0, what=f"an empty {lane} lane")  # type: ignore[misc]
            assert self.pending(lane, task) == 0
        wait_until(lambda: not self.wait_keys(task), what="the end of all wait keys")

    def beat(self, name: str, *, silent_ms: int = 0, stuck_ms: int = 0, pid: int = 1, task: TaskName = "embed") -> None:
        """Write a heartbeat as a worker does, its last word and its last progress so long ago."""
        seconds, _ = self.client.time()
        now_ms = int(seconds) * 1000
        heartbeat = Heartbeat(
            model=self.model,
            model_loaded=True,
            dimension=8,
            host=name.partition("/")[0],
            pid=pid,
            state="running",
            in_flight_rows=0,
            rows_done=0,
            rows_per_s=0.0,
            started_at_ms=now_ms - 600_000,
            beat_at_ms=now_ms - silent_ms,
            progressed_at_ms=now_ms - stuck_ms,
            batch_limit_ms=120_000,
        )
        self.client.hset(self.queue(task).workers, name, encode_message(heartbeat))

    def counters(self, task: TaskName = "embed") -> dict[str, int]:
        """The queue's counters."""
        with self.producer() as producer:
            return producer.queue_state(task).counters

    def _settings(self) -> dict[str, Any]:
        models = {"embed_model": self.model, "rerank_model": self.model}
        return {"url": self.url, "namespace": self.namespace, "timeout_s": 60.0, **models}


def passage(text: str) -> Row:
    """The row of a passage."""
    return Row(kind=Kind.PASSAGE, text=text)
