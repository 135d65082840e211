"""The parent process of a pool: spawns workers, replaces those that crash, hang or grow, and stops them in order."""

import logging
import multiprocessing
import random
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import TypeVar

import redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from producer.errors import ConfigurationError, redacted
from producer.wire.keys import QueueKeys
from producer.wire.models import TaskName, resolve
from workers.names import take_names
from workers.process import Load, Place, connect_worker, refused, serve
from workers.server_check import check_server
from workers.settings import WorkerSettings
from workers.stopping import EXIT_CONFIGURATION, SignalCount
from workers.vitals import Vitals, resident_mb

logger = logging.getLogger("headrace.pool")

Answer = TypeVar("Answer")

_GIVE_UP_AFTER = 5
"""Starts in a row that may fail before the pool ends with an error."""

_STEADY_S = 30.0
"""After a life of this long a crash is the first one again."""

_FIRST_BACKOFF_S = 0.5
_LAST_BACKOFF_S = 30.0
_MOST_DOUBLINGS = 10
_LAST_BACKOFF_SERVED_S = 4.0
"""For a process that had begun to serve: it can start, and its work waits."""

_POLL_S = 0.5
_RETRY_S = 1.0


@dataclass
class _Slot:
    """One place for a process: who is in it, how it fares, and when the next may be started."""

    place: Place
    process: BaseProcess | None = None
    started_at: float = 0.0
    end_by: float = float("inf")
    """When a process that has been told to end must have ended."""

    failures: int = 0
    crashes: int = 0
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
        try:
            names = self._prepare()
        except ConfigurationError as error:
            logger.error("%s", error)
            return EXIT_CONFIGURATION
        self._slots = [_Slot(Place(number=number, name=name, vitals=Vitals())) for number, name in enumerate(names)]
        try:
            while not self._requests.count and not self._failed_code:
                for slot in self._slots:
                    self._tend(slot)
                self._wait(_POLL_S)
        finally:
            self._stop()
        return self._failed_code

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._requests.note(number)

    def _prepare(self) -> list[str]:
        """Check the server and take names for the processes, as soon as Redis serves."""
        settings, names = self._settings, list[str]()
        queue = QueueKeys.of(resolve(self._task, settings.model(self._task)), settings.namespace)
        with connect_worker(settings) as client:
            self._when_served(lambda: _check(client))
            while len(names) < settings.processes and not self._requests.count:
                missing = settings.processes - len(names)
                model = settings.model(self._task)
                names += self._when_served(lambda: take_names(client, queue, model, missing, names)) or []  # noqa: B023
        return names

    def _when_served(self, ask: Callable[[], Answer]) -> Answer | None:
        """Ask Redis until it answers; None if somebody asks to stop before."""
        while not self._requests.count:
            try:
                return ask()
            except AuthenticationError as error:
                raise refused(error) from error
            except NoPermissionError as error:
                lead = "this user of Redis may not run a pool, which is for `worker` of docker/users.acl"
                raise ConfigurationError(f"{lead}: {redacted(error)}") from error
            except (RedisError, OSError) as error:
                logger.warning("Redis does not serve yet: %s", redacted(error))
                self._wait(_RETRY_S)
        return None

    def _tend(self, slot: _Slot) -> None:
        now = time.monotonic()
        if slot.process is not None:
            if slot.process.exitcode is None:
                self._watch(slot, slot.process, now)
                return
            self._note_end(slot, slot.process.exitcode, now)
        if slot.process is None and now >= slot.start_after and not self._failed_code:
            self._start(slot, now)

    def _start(self, slot: _Slot, now: float) -> None:
        slot.place = replace(slot.place, vitals=Vitals())
        process = self._context.Process(
            target=serve,
            args=(self._task, self._load, self._settings, slot.place),
            name=f"headrace-{self._task}-{slot.place.number}",
        )
        # A child never hears Ctrl-C, from its first moment: its parent passes it on in order. It inherits the
        # mask, and one that comes meanwhile reaches the parent afterwards.
        slot.started_at, slot.end_by = now, float("inf")
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
            slot.process = process
        except OSError as error:
            logger.error("worker %s cannot be started: %s", slot.place.name, error)
            self._note_end(slot, 1, now)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _watch(self, slot: _Slot, process: BaseProcess, now: float) -> None:
        """Kill a process that hangs; let one that has grown too large end in order."""
        most_mb = self._settings.recycle_mb
        if slot.place.vitals.working_s() > self._settings.batch_limit_s:
            logger.error(
                "worker %s hangs: a batch runs for more than %g s, it is killed",
                slot.place.name,
                self._settings.batch_limit_s,
            )
            slot.place.vitals.forget_work()
            process.kill()
        elif now > slot.end_by:
            process.kill()
        elif most_mb and slot.end_by == float("inf") and (held_mb := resident_mb(process.pid)) > most_mb:
            logger.warning("worker %s holds %d MiB, more than %d: it is replaced", slot.place.name, held_mb, most_mb)
            slot.end_by = now + self._settings.grace_s
            process.terminate()

    def _note_end(self, slot: _Slot, exitcode: int, now: float) -> None:
        """Decide after an end: the next at once or after a pause that doubles, or give the pool up."""
        steady, told = now - slot.started_at > _STEADY_S, slot.end_by != float("inf")
        slot.process = None
        if exitcode == 0 and slot.place.vitals.served and (slot.place.vitals.worked or not told):
            logger.info("worker %s ended in order, the next one starts", slot.place.name)
            slot.failures = slot.crashes = 0
            return
        # One that has never served, or was too large before it had done anything, will be no better the next time.
        vitals = slot.place.vitals
        slot.failures = 0 if vitals.worked or (vitals.served and not told) else slot.failures + 1
        slot.crashes = 1 if steady else slot.crashes + 1
        if exitcode == EXIT_CONFIGURATION or slot.failures >= _GIVE_UP_AFTER:
            self._failed_code = exitcode if exitcode > 0 else 1
            logger.error("worker %s ended with code %d: the pool gives up", slot.place.name, exitcode)
            return
        longest_s = _LAST_BACKOFF_S if slot.failures else _LAST_BACKOFF_SERVED_S
        doubled_s = _FIRST_BACKOFF_S * 2 ** min(slot.crashes - 1, _MOST_DOUBLINGS)
        pause_s = min(doubled_s, longest_s) * random.uniform(0.8, 1.2)  # noqa: S311
        slot.start_after = now + pause_s
        logger.warning("worker %s ended with code %d, the next starts in %.1f s", slot.place.name, exitcode, pause_s)

    def _wait(self, timeout_s: float) -> None:
        """Sleep until a process ends, a signal comes, or the time is over."""
        sentinels = [slot.process.sentinel for slot in self._slots if slot.process and slot.process.is_alive()]
        if self._woken in wait([self._woken, *sentinels], timeout_s):
            self._woken.recv(64)

    def _stop(self) -> None:
        """Let every process finish its batch within the grace period; a second request or its end kills."""
        running = [slot.process for slot in self._slots if slot.process is not None]
        for slot in self._slots:
            if slot.process is not None and slot.end_by == float("inf"):  # who was told twice would end at once
                slot.process.terminate()
        deadline = time.monotonic() + self._settings.grace_s
        asked = 0 if self._failed_code else 1
        while any(process.is_alive() for process in running):
            if time.monotonic() > deadline or self._requests.count > asked:
                for process in running:
                    process.kill()
            self._wait(_POLL_S)
        for process in running:
            process.join()


def _check(client: redis.Redis) -> None:
    """Refuse a server that could lose work by its settings, and warn of what an operator should know."""
    try:
        info = client.info()
    except NoPermissionError:
        logger.warning("the server's settings cannot be checked: this user may not run INFO")
        return
    for warning in check_server(info):
        logger.warning("%s", warning)
