"""Memory of a pool of big models: 4 processes with shared weights against 4 as onnxruntime runs them by default.

The model has multilingual-e5-large's shape (see `big_model`); 4 workers in 6 GB are what the replaced service had.
Needs about 12 GiB of free memory, since both groups are measured in turns, and 6 GB of disk in the cache folder.
"""

import math
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

from benchmarks.big_model import big_model_directory, words
from benchmarks.finding import Finding, Pair, in_turns
from producer.settings import load
from workers.memory import available_bytes, proportional_bytes
from workers.models.prepared import PREPARE_BYTES
from workers.settings import WorkerSettings, cores_for_slot

PROCESSES = 4
LIMIT_GIB = 6.0
_WANTED_GIB = 12.0
_ROUNDS = 3
_SAMPLE_S = 0.1
_LONG, _SHORT = (128, 2, 1), (12, 1, 8)
"""Tokens of a row, rows of a batch, and batches that each process runs in a round."""


@dataclass(frozen=True, kw_only=True)
class _Memory:
    """PSS of all processes: what each has of its own, and its part of what they share."""

    loading_gib: float
    """The most while they loaded, all at the same time."""

    running_gib: float
    """After the batches, as if every page of the weights had been used: a vocabulary is touched word by word."""


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Running processes, each with a loaded model, that take batches together."""

    processes: list[BaseProcess]
    ends: list[Connection]
    loading_gib: float

    def rows_per_s(self, work: tuple[int, int, int]) -> float:
        for end in self.ends:
            end.send(work)
        spans = [end.recv() for end in self.ends]
        _, rows, batches = work
        took_s: float = max(last for _, last in spans) - min(first for first, _ in spans)
        return PROCESSES * rows * batches / took_s

    def memory(self) -> _Memory:
        parts = [_parts_bytes(process.pid) for process in self.processes]
        running = sum(own for own, _ in parts) + parts[0][1]
        return _Memory(loading_gib=self.loading_gib, running_gib=running / 2**30)


def run() -> list[Finding]:
    """Measure both groups; the model is built, and its weights are prepared, at the first run.

    Raises:
        RuntimeError: less memory is free than both groups take.
    """
    free_gib = available_bytes() / 2**30
    if 0 < free_gib < _WANTED_GIB:
        raise RuntimeError(f"{_WANTED_GIB:g} GiB of free memory are wanted, and there are {free_gib:.1f}")
    directory = big_model_directory()
    with _group(directory, prepare_bytes=math.inf) as plain, _group(directory, prepare_bytes=PREPARE_BYTES) as shared:
        long = in_turns(lambda: shared.rows_per_s(_LONG), lambda: plain.rows_per_s(_LONG), rounds=_ROUNDS)
        short = in_turns(lambda: shared.rows_per_s(_SHORT), lambda: plain.rows_per_s(_SHORT), rounds=_ROUNDS)
        ours, theirs = shared.memory(), plain.memory()
    return [
        _memory_finding("PSS of 4 workers, multilingual-e5-large's shape", ours.running_gib, theirs.running_gib),
        _memory_finding("the same, at most while they load", ours.loading_gib, theirs.loading_gib),
        _speed_finding(f"their rows/s, {_LONG[0]} tokens", long),
        _speed_finding(f"their rows/s, {_SHORT[0]} tokens", short),
    ]


def _memory_finding(what: str, ours: float, theirs: float) -> Finding:
    return Finding(
        target="memory",
        what=what,
        against="the 6 GB of the service it replaces (theirs: onnxruntime's defaults)",
        measured=ours,
        bound=LIMIT_GIB,
        at_least=False,
        unit="GiB",
        ours=f"{ours:.2f} GiB",
        theirs=f"{theirs:.2f} GiB",
        note="tokenizers and working memory are each process's own; weights that cannot be prepared are, too",
    )


def _speed_finding(what: str, pair: Pair) -> Finding:
    return Finding(
        target="memory",
        what=what,
        against="onnxruntime's defaults, each process with weights of its own",
        measured=pair.ratio,
        bound=0.95,
        ours=f"{pair.ours:.2f} rows/s",
        theirs=f"{pair.theirs:.2f} rows/s",
        note="the same operators on mapped pages: a difference below a tenth is noise",
    )


@contextmanager
def _group(directory: Path, *, prepare_bytes: float) -> Iterator[_Group]:
    """Start the processes, and end them with the block."""
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(PROCESSES)
    processes: list[BaseProcess] = []
    ends: list[Connection] = []
    for slot in range(PROCESSES):
        mine, theirs = context.Pipe()
        process: BaseProcess = context.Process(
            target=_serve, args=(slot, directory, prepare_bytes, theirs, together), daemon=True
        )
        process.start()
        theirs.close()  # so that a process that dies ends the wait for it
        processes.append(process)
        ends.append(mine)
    try:
        with _peak_bytes(processes) as peak:
            for end in ends:
                end.recv()
        yield _Group(processes=processes, ends=ends, loading_gib=peak[0] / 2**30)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _serve(slot: int, directory: Path, prepare_bytes: float, end: Connection, together: Barrier) -> None:
    """One process: load the model as a worker does, then run what is asked for and tell from when to when."""
    from workers.models.fastembed_models import load_embedder  # noqa: PLC0415 - heavy; only children load it

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    cores = cores_for_slot("embed", slot, PROCESSES, 1, sorted(os.sched_getaffinity(0)))
    if cores:
        os.sched_setaffinity(0, cores)
    cache = load(WorkerSettings, os.environ).cache_path
    model = load_embedder(str(directory), cache_dir=cache, threads=1, prepare_bytes=prepare_bytes)
    model.weights_sha256()
    vocabulary = words()
    end.send(True)
    while True:
        tokens, rows, batches = end.recv()
        start = slot * 100
        text = " ".join(vocabulary[start : start + tokens - 2])  # and two special tokens
        together.wait()
        began = time.monotonic()
        for _ in range(batches):
            model.embed([text] * rows)
        end.send((began, time.monotonic()))


@contextmanager
def _peak_bytes(processes: list[BaseProcess]) -> Iterator[list[int]]:
    """Sample the sum of PSS while the block runs; its largest value is in the list afterwards."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE_S):
            peak[0] = max(peak[0], sum(proportional_bytes(process.pid) for process in processes))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()


def _parts_bytes(pid: int | None) -> tuple[int, int]:
    """PSS without the mapped weights; and the size of the mapped weights, used or not."""
    own, mapped, weights, size = 0, 0, False, 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            weights = line.endswith(".onnx_data")
        elif name == "Size:":
            size = int(rest[0]) << 10
        elif name == "Pss:" and weights:
            mapped += size
        elif name == "Pss:":
            own += int(rest[0]) << 10
    return own, mapped


if __name__ == "__main__":
    for finding in run():
        print(finding)
