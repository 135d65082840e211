"""The parent process of a pool: spawns workers, restarts those that crash, and stops them all in order."""

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
from types import FrameType

from redis.exceptions import AuthenticationError, RedisError

from producer.errors import ConfigurationError, MalformedMessage
from producer.state import ALIVE_MS
from producer.wire.codec import decode_message
from producer.wire.keys import QueueKeys
from producer.wire.messages import Heartbeat
from producer.wire.models import TaskName, resolve
from workers.process import EXIT_CONFIGURATION, Load, connect_worker, serve
from workers.settings import WorkerSettings

logger = logging.getLogger("headrace.pool")

_GIVE_UP_AFTER = 5
"""Starts in a row that may fail before the pool ends with an error."""

_STEADY_S = 30.0
"""A process that has lived this long counts as started."""

_FIRST_BACKOFF_S = 0.5
_LAST_BACKOFF_S = 30.0
_POLL_S = 0.5


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
        self._signals = 0
        self._slots: list[_Slot] = []
        self._failed_code = 0

    def run(self) -> int:
        """Keep all slots filled until a signal comes or a process cannot be started."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        self._slots = [_Slot(number=n, name=name) for n, name in enumerate(self._free_names())]
        while not self._signals and not self._failed_code:
            for slot in self._slots:
                self._fill(slot)
            self._wait(_POLL_S)
        self._stop()
        return self._failed_code

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        self._signals += 1

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
            slot.process.start()
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
        wait([slot.process.sentinel for slot in self._slots if slot.process is not None], timeout_s)

    def _stop(self) -> None:
        """Let every process finish its batch within the grace period; a second signal or its end kills."""
        running = [slot.process for slot in self._slots if slot.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + self._settings.grace_s
        before = self._signals
        while any(process.is_alive() for process in running):
            if time.monotonic() > deadline or self._signals > max(before, 1):
                for process in running:
                    process.kill()
            wait([process.sentinel for process in running if process.is_alive()], 0.1)
        for process in running:
            process.join()

    def _free_names(self) -> list[str]:
        """Choose slot names that no live process of this host has, lowest first.

        Names are stable, so that a restarted pool finds its own unfinished entries, and consumers do not pile up.
        """
        host, taken = socket.gethostname(), self._live_names()
        names: list[str] = []
        number = 0
        while len(names) < self._settings.processes:
            if (name := f"{host}/{number}") not in taken:
                names.append(name)
            number += 1
        return names

    def _live_names(self) -> set[str]:
        queue = QueueKeys.of(resolve(self._task, self._settings.model(self._task)), self._settings.namespace)
        client = connect_worker(self._settings.redis_url)
        live = set()
        try:
            seconds, _ = client.time()
            beats: dict[bytes, bytes] = client.hgetall(queue.workers)  # type: ignore[assignment]
            for name, data in beats.items():
                beat = decode_message(Heartbeat, data)
                if seconds * 1000 - beat.beat_at_ms < ALIVE_MS and _runs(beat.pid):
                    live.add(name.decode())
        except AuthenticationError as error:
            raise ConfigurationError(
                f"Redis refuses the user or the password: {error}", code="redis_refused"
            ) from error
        except (RedisError, OSError, MalformedMessage) as error:
            logger.warning("cannot see which workers run, taking the first names: %s", error)
        finally:
            client.close()
        return live


def _runs(pid: int) -> bool:
    """Whether a process of that pid runs here. Heartbeats of other hosts have other names and do not matter."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
