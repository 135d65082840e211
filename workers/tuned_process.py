"""A process that `headrace tune` measures: loads the model as a worker does, then runs what its parent orders.

Orders and answers are JSON over a pipe; when the parent is gone, so is the pipe, and the process ends.
"""

import json
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

from producer.errors import HeadraceError
from producer.wire.messages import Row
from producer.wire.models import TaskName
from workers.budget import batches
from workers.process import Load, configure_logging, limit_cpu
from workers.sample_texts import sample_rows
from workers.settings import WorkerSettings
from workers.tasks import Task

_MIXED_WORDS = (4, 8, 12, 20, 30, 45, 60, 90, 130, 180)
_MIXED_ROWS = 64
_SHORT_WORDS = 6


@dataclass(frozen=True, kw_only=True)
class Order:
    """One thing to do: "warm_up" or "run" with a budget, or run one short row again and again ("short")."""

    what: str
    budget_tokens: int = 1
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of an order, or that the model is loaded; of its fields those that fit are set."""

    batch_invariant: bool = True
    rows_per_s: float = 0.0
    short_row_ms: float = 0.0
    error: str = ""


def send(pipe: "Connection[bytes, bytes]", message: Order | Answer) -> None:
    """Write one message."""
    pipe.send_bytes(json.dumps(vars(message)).encode())


def receive(pipe: "Connection[bytes, bytes]") -> dict[str, Any]:
    """Read the fields of the next message.

    Raises:
        EOFError: the other side is gone.
    """
    fields: dict[str, Any] = json.loads(pipe.recv_bytes())
    return fields


def serve_orders(
    task: TaskName, load: Load, settings: WorkerSettings, number: int, pipe: "Connection[bytes, bytes]"
) -> None:
    """Be process `number` of an arrangement until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its processes by itself
    configure_logging("warning")
    limit_cpu(task, settings, number)
    try:
        loaded = load(settings)
        bench = _Bench(loaded.task, seed=number)
        send(pipe, Answer(batch_invariant=loaded.card.batch_invariant))
        while True:
            send(pipe, bench.follow(Order(**receive(pipe))))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except HeadraceError as error:
        send(pipe, Answer(error=str(error)))
    except Exception as error:  # noqa: BLE001 - a model may raise anything, and a person gets one line of it
        send(pipe, Answer(error=f"the model failed: {type(error).__name__}: {error}"))


class _Bench:
    """A loaded model and the rows to run it on."""

    def __init__(self, task: Task, seed: int) -> None:
        self._task = task
        self._seed = seed
        lengths = [_MIXED_WORDS[number % len(_MIXED_WORDS)] for number in range(_MIXED_ROWS)]
        self._rows = sample_rows(task.name, lengths)
        self._tokens = [measure.tokens for measure in task.measure(self._rows)]
        self._short = sample_rows(task.name, [_SHORT_WORDS])

    def follow(self, order: Order) -> Answer:
        """Do what an order says."""
        if order.what == "short":
            return Answer(short_row_ms=self._short_row_ms(order.seconds))
        plan = list(batches(self._tokens, order.budget_tokens))
        if order.what == "warm_up":
            self._task.run(self._pick(plan[-1]))
            return Answer()
        return Answer(rows_per_s=self._rows_per_s(plan, order.seconds))

    def _rows_per_s(self, plan: list[list[int]], seconds: float) -> float:
        """Run batches in random order until the time is over.

        Tokens are counted and then told as rows of the mean length: which batch is the last must not matter much.
        """
        order = random.Random(self._seed)  # noqa: S311
        done_tokens, started = 0, time.perf_counter()
        while True:
            for batch in order.sample(plan, len(plan)):
                self._task.run(self._pick(batch))
                done_tokens += sum(self._tokens[index] for index in batch)
                if (elapsed_s := time.perf_counter() - started) >= seconds:
                    return done_tokens / elapsed_s * len(self._tokens) / sum(self._tokens)

    def _short_row_ms(self, seconds: float) -> float:
        times_s: list[float] = []
        ends_at = time.perf_counter() + seconds
        while not times_s or time.perf_counter() < ends_at:
            started = time.perf_counter()
            self._task.run(self._short)
            times_s.append(time.perf_counter() - started)
        return median(times_s) * 1000

    def _pick(self, indices: Sequence[int]) -> list[Row]:
        return [self._rows[index] for index in indices]
