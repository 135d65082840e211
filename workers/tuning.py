"""Measures a model in every arrangement of processes, threads and batches that fits this machine, one after another."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from statistics import median
from types import TracebackType
from typing import Any, Self

from producer.errors import ConfigurationError
from producer.wire.models import TaskName
from workers.arrangements import Arrangement, Figure, arrangements
from workers.calibration import ROW_BY_ROW_TOKENS
from workers.memory import available_bytes, proportional_bytes
from workers.process import Load
from workers.settings import WorkerSettings
from workers.tuned_process import Answer, Order, receive, send, serve_orders

BUDGETS_TOKENS = (256, 512, 1024)

_ROUNDS = 3
"""The time for a measurement is shared out: medians count, and what else disturbs the machine disturbs all alike."""

_SHORT_SHARE = 0.3
"""Of the time for one measurement, what the short row alone gets."""

_MEMORY_SHARE = 0.8
"""An arrangement that would take more of the free memory is left out."""

OnStep = Callable[[str], object]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """All that was measured, and what was left out since it would not fit into memory."""

    figures: list[Figure] = field(default_factory=list)
    left_out: list[Arrangement] = field(default_factory=list)


def tune(task: TaskName, load: Load, settings: WorkerSettings, *, cpus: int, seconds: float, on_step: OnStep) -> Tuning:
    """Measure all arrangements for so many CPUs, each budget for so many seconds.

    Raises:
        ConfigurationError: the model cannot be loaded or run, or a process has died.
    """
    found, process_bytes = Tuning(), 0
    for arrangement in arrangements(cpus):
        if arrangement.processes * process_bytes > available_bytes() * _MEMORY_SHARE > 0:
            found.left_out.append(arrangement)
            continue
        on_step(f"{arrangement} (processes x threads): loading")
        with _Crew(task, load, replace(settings, **vars(arrangement))) as crew:
            for figure in crew.measure(arrangement, seconds, on_step):
                found.figures.append(figure)
                process_bytes = max(process_bytes, figure.memory_bytes // arrangement.processes)
    return found


class _Crew:
    """The processes of one arrangement; killed when the block is left, however that happens."""

    def __init__(self, task: TaskName, load: Load, settings: WorkerSettings) -> None:
        self._what = (task, load, settings)
        # onnxruntime must not be used across fork: children start from nothing.
        self._context = multiprocessing.get_context("spawn")
        self._members: list[tuple[BaseProcess, Connection[bytes, bytes]]] = []
        self._size = settings.processes

    def __enter__(self) -> Self:
        try:
            for number in range(self._size):
                self._start(number)
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def measure(self, arrangement: Arrangement, seconds: float, on_step: OnStep) -> list[Figure]:
        """Wait until all have loaded the model, then measure the budgets in turns with all at work at once."""
        invariant = all(answer.batch_invariant for answer in self._answers())
        (short,) = self._order(Order(what="short", seconds=seconds * _SHORT_SHARE), self._members[:1])
        rates: dict[int, list[float]] = {}
        memory_bytes: dict[int, int] = {}
        for number in range(_ROUNDS):
            on_step(f"{arrangement} (processes x threads): round {number + 1} of {_ROUNDS}")
            for tokens in BUDGETS_TOKENS if invariant else (ROW_BY_ROW_TOKENS,):
                if not number:
                    self._order(Order(what="warm_up", budget_tokens=tokens), self._members)
                order = Order(what="run", budget_tokens=tokens, seconds=seconds / _ROUNDS)
                rates.setdefault(tokens, []).append(sum(each.rows_per_s for each in self._order(order, self._members)))
                # After the first round: later on, what the larger batches took would be counted as well.
                memory_bytes.setdefault(tokens, sum(proportional_bytes(process.pid) for process, _ in self._members))
        return [
            Figure(
                arrangement=arrangement,
                budget_tokens=tokens,
                rows_per_s=median(figures),
                short_row_ms=short.short_row_ms,
                memory_bytes=memory_bytes[tokens],
            )
            for tokens, figures in rates.items()
        ]

    def _start(self, number: int) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=serve_orders, args=(*self._what, number, theirs), daemon=True)
        # As in a pool: a child never hears Ctrl-C, from its first moment; its parent ends it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
            self._members.append((process, ours))
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _order(self, order: Order, members: Sequence[tuple[BaseProcess, Any]]) -> list[Answer]:
        for _, pipe in members:
            with suppress(BrokenPipeError, ConnectionResetError):  # it has died, and its answer will say so
                send(pipe, order)
        return self._answers(members)

    def _answers(self, members: Sequence[tuple[BaseProcess, Any]] | None = None) -> list[Answer]:
        answers = []
        for process, pipe in self._members if members is None else members:
            try:
                answer = Answer(**receive(pipe))
            except (EOFError, ConnectionResetError):
                process.join()
                raise ConfigurationError(
                    f"a process of the measurement ended with code {process.exitcode}; memory may be too small for it"
                ) from None
            if answer.error:
                raise ConfigurationError(answer.error)
            answers.append(answer)
        return answers

    def _kill(self) -> None:
        for process, _ in self._members:
            process.kill()
        for process, pipe in self._members:
            process.join()
            pipe.close()
