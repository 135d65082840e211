"""The parent process of a pool: spawns workers, restarts those that crash, and stops them all in order."""

import itertools
import logging
import multiprocessing
import os
import random
import signal
import socket
import time
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

import redis
from redis.exceptions import AuthenticationError, RedisError

from producer.connection import run_script
from producer.errors import MalformedMessage
from producer.state import ALIVE_MS
from producer.wire import scripts
from producer.wire.codec import decode_message, encode_message
from producer.wire.keys import QueueKeys
from producer.wire.messages import Heartbeat
from producer.wire.models import TaskName, resolve
from workers.process import EXIT_CONFIGURATION, Load, connect_worker, refused, serve
from workers.settings import WorkerSettings
from workers.stopping import SignalCount

logger = logging.getLogger("headrace.pool")

_GIVE_UP_AFTER = 5
"""Starts in a row that may fail before the pool ends with an error."""

_STEADY_S = 30.0
"""A process that has lived this long counts as started."""

_FIRST_BACKOFF_S = 0.5
_LAST_BACKOFF_S = 30.0
_POLL_S = 0.5
_RETRY_S = 1.0


@dataclass
class _Slot:
    """One place for a process: who is in it, and when the next may be started."""

    number: int
    name: str
    process: BaseProcess | None = None
    started_at: float = 0.0
    failures: int = 0
    start_after: float = field(default=float("-inf"))


class Pool:
    """So many processes of one task. `run` returns an exit code: 0 after SIGTERM or Ctrl-C."""

    def __init__(self, task: TaskName, load: Load, settings: WorkerSettings) -> None:
        self._task = task
        self._load = load
        self._settings = settings
        # onnxruntime must not be used across fork: children start from nothing.
        self._context = multiprocessing.get_context("spawn")
        self._requests = SignalCount()
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._slots: list[_Slot] = []
        self._failed_code = 0

    def run(self) -> int:
        """Keep all slots filled until a signal comes or a process cannot be started."""
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        self._slots = [_Slot(number=n, name=name) for n, name in enumerate(self._take_names())]
        while not self._requests.count and not self._failed_code:
            for slot in self._slots:
                self._fill(slot)
            self._wait(_POLL_S)
        self._stop()
        return self._failed_code

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._requests.note(number)

    def _fill(self, slot: _Slot) -> None:
        now = time.monotonic()
        if slot.process is not None:
            if slot.process.exitcode is None:
                return
            self._note_end(slot, slot.process.exitcode, now)
        if slot.process is None and now >= slot.start_after and not self._failed_code:
            slot.process = self._context.Process(
                target=serve,
                args=(self._task, self._load, self._settings, slot.number, slot.name),
                name=f"headrace-{self._task}-{slot.number}",
            )
            # A child never hears Ctrl-C, from its first moment: its parent passes it on in order. It inherits the
            # mask, and one that comes meanwhile reaches the parent afterwards.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            slot.process.start()
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            slot.started_at = now

    def _note_end(self, slot: _Slot, exitcode: int, now: float) -> None:
        """Decide after an unasked end: again after a pause that doubles, or give the pool up."""
        slot.process = None
        slot.failures = 1 if now - slot.started_at > _STEADY_S else slot.failures + 1
        if exitcode == EXIT_CONFIGURATION or slot.failures >= _GIVE_UP_AFTER:
            self._failed_code = exitcode if exitcode > 0 else 1
            logger.error("worker %s ended with code %d: the pool gives up", slot.name, exitcode)
            return
        pause_s = min(_FIRST_BACKOFF_S * 2 ** (slot.failures - 1), _LAST_BACKOFF_S) * random.uniform(0.8, 1.2)  # noqa: S311
        slot.start_after = now + pause_s
        logger.warning("worker %s ended with code %d, the next starts in %.1f s", slot.name, exitcode, pause_s)

    def _wait(self, timeout_s: float) -> None:
        """Sleep until a process ends, a signal comes, or the time is over."""
        sentinels = [slot.process.sentinel for slot in self._slots if slot.process and slot.process.is_alive()]
        if self._woken in wait([self._woken, *sentinels], timeout_s):
            self._woken.recv(64)

    def _stop(self) -> None:
        """Let every process finish its batch within the grace period; a second request or its end kills."""
        running = [slot.process for slot in self._slots if slot.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + self._settings.grace_s
        asked = 0 if self._failed_code else 1
        while any(process.is_alive() for process in running):
            if time.monotonic() > deadline or self._requests.count > asked:
                for process in running:
                    process.kill()
            self._wait(_POLL_S)
        for process in running:
            process.join()

    def _take_names(self) -> list[str]:
        """Take slot names that no live process of this host has, lowest first.

        Names are stable, so that a restarted pool finds its own unfinished entries, and consumers do not pile up.
        """
        queue = QueueKeys.of(resolve(self._task, self._settings.model(self._task)), self._settings.namespace)
        names: list[str] = []
        with connect_worker(self._settings.redis_url) as client:
            while len(names) < self._settings.processes and not self._requests.count:
                try:
                    names += self._try_names(client, queue, self._settings.processes - len(names), names)
                except AuthenticationError as error:
                    raise refused(error) from error
                except (RedisError, OSError) as error:
                    logger.warning("Redis does not serve yet: %s", error)
                    self._wait(_RETRY_S)
        return names

    def _try_names(self, client: redis.Redis, queue: QueueKeys, count: int, mine: list[str]) -> list[str]:
        """Take up to `count` names that look free; fewer if another pool was faster."""
        seconds, _ = client.time()
        now_ms = seconds * 1000
        beats: dict[bytes, bytes] = client.hgetall(queue.workers)  # type: ignore[assignment]
        candidates = (f"{socket.gethostname()}/{number}" for number in itertools.count())
        free = (name for name in candidates if name not in mine and not _is_live(beats.get(name.encode()), now_ms))
        first_beat = encode_message(self._first_beat(now_ms))
        return [
            name
            for name in itertools.islice(free, count)
            if run_script(client, scripts.claim(queue, name, beats.get(name.encode(), b""), first_beat))
        ]

    def _first_beat(self, now_ms: int) -> Heartbeat:
        """What stands for a worker until it beats itself: its parent lives, and nothing is loaded."""
        return Heartbeat(
            model=self._settings.model(self._task),
            model_loaded=False,
            dimension=0,
            host=socket.gethostname(),
            pid=os.getpid(),
            state="starting",
            in_flight_rows=0,
            rows_done=0,
            rows_per_s=0.0,
            started_at_ms=now_ms,
            beat_at_ms=now_ms,
            progressed_at_ms=now_ms,
        )


def _is_live(beat: bytes | None, now_ms: int) -> bool:
    """Whether a heartbeat is fresh and its process runs; one that cannot be read is another release's, and live."""
    if beat is None:
        return False
    try:
        heartbeat = decode_message(Heartbeat, beat)
    except MalformedMessage:
        return True
    return now_ms - heartbeat.beat_at_ms < ALIVE_MS and _runs(heartbeat.pid)


def _runs(pid: int) -> bool:
    """Whether a process of that pid runs here. Heartbeats of other hosts have other names and do not matter."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except OSError:
        return True  # not ours to signal, or a system without /proc
    return state not in ("Z", "X")  # killed, and only not yet reaped
