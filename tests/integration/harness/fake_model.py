"""A model that costs nothing: results follow from the text's hash, and its work can be counted, held and failed."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha256
from types import FrameType
from typing import Any

import numpy as np
import redis
from redis.exceptions import RedisError

from producer.connection import connect
from producer.results import Vector
from producer.wire.messages import ModelCard
from producer.wire.models import TaskName, resolve
from workers.process import LoadedModel
from workers.settings import WorkerSettings
from workers.tasks import EmbedTask, Measure, RerankTask

DIMENSION = 8
HOLD = "hold:"
"""A text that begins so keeps its worker busy until the test releases it."""

_LONGEST_HOLD_S = 60.0
_LONGEST_WAIT_S = 30.0
_POLL_S = 0.01

Input = str | tuple[str, str]


def vector_of(text: str) -> Vector:
    """The fake vector of a text: float32, shape (DIMENSION,)."""
    return np.frombuffer(sha256(text.encode()).digest()[:DIMENSION], dtype=np.uint8).astype(np.float32)


def vectors_of(texts: Sequence[str]) -> Vector:
    """The fake vectors of texts: float32, shape (n, DIMENSION)."""
    return np.stack([vector_of(text) for text in texts])


def score_of(query: str, document: str) -> float:
    """The fake score of a pair."""
    return float(vector_of(f"{query}\n{document}")[0])


class FakeModel:
    """Both protocols of `workers.tasks` at once: a row is as many tokens as it has words."""

    dimension = DIMENSION

    def __init__(self, on_batch: Callable[[Sequence[Input]], None] = lambda batch: None) -> None:
        self._on_batch = on_batch
        self.batches: list[list[Input]] = []

    @property
    def computed(self) -> list[Input]:
        """All rows in the order of their computation."""
        return [row for batch in self.batches for row in batch]

    def measure(self, rows: Sequence[Input]) -> list[Measure]:
        joined = [row if isinstance(row, str) else " ".join(row) for row in rows]
        return [Measure(tokens=len(text.split()), truncated=False) for text in joined]

    def embed(self, texts: Sequence[str]) -> Vector:
        self._run(texts)
        return vectors_of(texts)

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        self._run(pairs)
        return [score_of(query, document) for query, document in pairs]

    def _run(self, batch: Sequence[Input]) -> None:
        self._on_batch(batch)
        self.batches.append(list(batch))


class Gate:
    """Lets so many batches through; the next one stands until it is let in, too."""

    def __init__(self) -> None:
        self._places = threading.Semaphore(0)
        self._open = threading.Event()
        self.arrived = 0

    def __call__(self, _batch: Sequence[Input]) -> None:
        self.arrived += 1
        deadline = time.monotonic() + _LONGEST_WAIT_S
        while not self._open.is_set() and not self._places.acquire(timeout=_POLL_S):
            if time.monotonic() > deadline:
                self.open()  # a test that has failed ends soon
                raise AssertionError("nobody opened the gate")

    def let(self, batches: int) -> None:
        """Let so many more batches in."""
        self._places.release(batches)

    def open(self) -> None:
        """Let everything in from now on."""
        self._open.set()


def describe(task: TaskName, model: FakeModel, name: str) -> LoadedModel:
    """What `load` hands to the engine, for a fake model."""
    card = ModelCard(
        task=task,
        model=name,
        dimension=DIMENSION if task == "embed" else 0,
        max_tokens=0,
        weights_sha256="fake",
        query_prefix="",
        passage_prefix="",
        batch_invariant=True,
        method="",
    )
    running = EmbedTask(model, resolve("embed", name)) if task == "embed" else RerankTask(model)
    return LoadedModel(task=running, card=card)


class Record:
    """The work of all processes of a fake pool, written to Redis before each batch: (pid, text) pairs."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client = client
        self._rows = f"{namespace}:fake:rows"
        self._release = f"{namespace}:fake:release"
        self._signals = f"{namespace}:fake:signals"

    def add(self, texts: Sequence[str]) -> None:
        self._client.rpush(self._rows, *(f"{os.getpid()} {text}" for text in texts))

    def read(self) -> list[tuple[int, str]]:
        rows: list[bytes] = self._client.lrange(self._rows, 0, -1)  # type: ignore[assignment]
        return [(int(pid), text) for pid, text in (row.decode().split(" ", 1) for row in rows)]

    def texts(self) -> list[str]:
        return [text for _, text in self.read()]

    def holders(self, text: str) -> list[int]:
        """The processes that have taken up this text."""
        return [pid for pid, taken in self.read() if taken == text]

    def release(self) -> None:
        """End all holds."""
        self._client.set(self._release, 1)

    def signals(self) -> int:
        """How many SIGTERMs a process has seen that holds a row."""
        return int(self._client.get(self._signals) or 0)

    def wait_for_release(self, count_signals: Callable[[], int]) -> None:
        deadline = time.monotonic() + _LONGEST_HOLD_S
        while not self._client.exists(self._release) and time.monotonic() < deadline:
            if seen := count_signals():
                self._client.set(self._signals, seen)
            time.sleep(_POLL_S)


def load_in_pool(settings: WorkerSettings) -> LoadedModel:
    """The `load` of a fake pool: records its work, takes FAKE_ROW_MS for a row, and stands at texts to hold."""
    record = Record(connect(settings), settings.namespace)
    row_s = float(os.environ.get("FAKE_ROW_MS", "0")) / 1000
    count_signals = _count_sigterms()

    def on_batch(batch: Sequence[Input]) -> None:
        texts = [str(text) for text in batch]
        with suppress(RedisError):  # the model of a pool whose Redis is away goes on
            record.add(texts)
            if any(text.startswith(HOLD) for text in texts):
                record.wait_for_release(count_signals)
        time.sleep(row_s * len(texts))

    return describe("embed", FakeModel(on_batch), settings.embed_model)


def _count_sigterms() -> Callable[[], int]:
    """Count this process's SIGTERMs before its own handler sees them."""
    handler: Any = signal.getsignal(signal.SIGTERM)
    seen = 0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        handler(number, frame)

    signal.signal(signal.SIGTERM, note)
    return lambda: seen
