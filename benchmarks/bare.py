"""The bare sequences that Headrace is measured against: redis-py alone, as short as it gets, and nothing promised.

`python -m benchmarks.bare hops|flow|joined URL` is the answering side, in a process of its own.
"""

import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import redis

from benchmarks.noop_pool import DIMENSION
from producer.orphans import end_with_parent

STREAM, GROUP, CHANNEL = "bare:jobs", "group", "bare:hints"
VECTOR = bytes(4 * DIMENSION)
_BLOCK_MS = 1000


class Asking:
    """The asking side. Connects, and subscribes, when it is made."""

    def __init__(self, client: redis.Redis) -> None:
        self._client: Any = client
        self._pubsub: Any = client.pubsub(ignore_subscribe_messages=True)
        self._pubsub.subscribe(CHANNEL)
        self._pubsub.get_message(timeout=1.0)

    def hop(self, text: str) -> bytes:
        """GET, XADD, hear the PUBLISH, GET."""
        value: bytes | None = self._client.get(_key(text))
        if value is None:
            self._client.xadd(STREAM, {"text": text})
            while self._pubsub.get_message(timeout=1.0) is None:
                pass
            value = self._client.get(_key(text))
        return value or b""

    def flow(self, texts: Iterable[str], window: int) -> Iterator[bytes]:
        """MGET, pipelined XADDs, hear which are there, MGET: in halves of the window, in order."""
        source, pending, ready = iter(texts), deque[str](), set[bytes]()
        while taken := list(islice(source, window - len(pending))) or pending:
            if taken is not pending:
                found = self._client.mget([_key(text) for text in taken])
                pipeline = self._client.pipeline(transaction=False)
                for text, value in zip(taken, found, strict=True):
                    pipeline.xadd(STREAM, {"text": text}) if value is None else ready.add(text.encode())
                pipeline.execute()
                pending.extend(taken)
            due = [pending.popleft() for _ in range(min(len(pending), window // 2))]
            while not ready.issuperset(text.encode() for text in due):
                if message := self._pubsub.get_message(timeout=1.0):
                    ready.update(message["data"].split(b"\n"))
            ready.difference_update(text.encode() for text in due)
            yield from self._client.mget([_key(text) for text in due])


def answer_hops(client: Any) -> None:
    """XREADGROUP, SET, PUBLISH."""
    while True:
        for _, entries in client.xreadgroup(GROUP, "one", {STREAM: ">"}, count=1, block=_BLOCK_MS) or {}.items():
            for _, fields in entries:
                client.set(b"bare:" + fields[b"text"], VECTOR)
                client.publish(CHANNEL, fields[b"text"])


def answer_flow(client: Any, count: int = 256) -> None:
    """XREADGROUP of many; SET, PUBLISH, XACK and XDEL for each, in one pipeline."""
    while True:
        for _, entries in client.xreadgroup(GROUP, "one", {STREAM: ">"}, count=count, block=_BLOCK_MS) or {}.items():
            pipeline = client.pipeline(transaction=False)
            for entry_id, fields in entries:
                pipeline.set(b"bare:" + fields[b"text"], VECTOR)
                pipeline.publish(CHANNEL, fields[b"text"])
                pipeline.xack(STREAM, GROUP, entry_id)
                pipeline.xdel(STREAM, entry_id)
            pipeline.execute()


def answer_joined(client: Any, count: int = 256) -> None:
    """The same, but with one PUBLISH, XACK and XDEL for all that were read at once."""
    while True:
        for _, entries in client.xreadgroup(GROUP, "one", {STREAM: ">"}, count=count, block=_BLOCK_MS) or {}.items():
            ids, texts = [entry_id for entry_id, _ in entries], [fields[b"text"] for _, fields in entries]
            pipeline = client.pipeline(transaction=False)
            for text in texts:
                pipeline.set(b"bare:" + text, VECTOR)
            pipeline.publish(CHANNEL, b"\n".join(texts))
            pipeline.xack(STREAM, GROUP, *ids)
            pipeline.xdel(STREAM, *ids)
            pipeline.execute()


@contextmanager
def answering(kind: str, client: redis.Redis, url: str) -> Iterator[None]:
    """Run the answering side until the block ends."""
    client.delete(STREAM)
    client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare", kind, url],
        preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call; the child runs no Python after it
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _key(text: str) -> str:
    return f"bare:{text}"


if __name__ == "__main__":
    {"hops": answer_hops, "flow": answer_flow, "joined": answer_joined}[sys.argv[1]](redis.Redis.from_url(sys.argv[2]))
