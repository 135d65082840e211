"""Strikes at the workers of a pool: most are killed, every fourth is stopped for longer than its lease."""

import os
import random
import signal
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.chaos.journal import Journal
from tests.integration.harness.processes import PoolProgram, session_members
from tests.integration.harness.waiting import wait_until

_STOP_EVERY = 4
_SPARED_BEGINNINGS = 2


class Striker:
    """Chooses a worker and strikes it. At the end of its block everything that it has stopped goes on."""

    def __init__(self, pool: PoolProgram, journal: Journal, chance: random.Random, *, lease_s: float) -> None:
        self._pool = pool
        self._journal = journal
        self._chance = chance
        self._lease_s = lease_s
        self._asleep: dict[int, threading.Timer] = {}
        self.killed: list[int] = []
        self.stopped: list[int] = []

    def strike(self) -> None:
        """Kill or stop one healthy worker, as soon as there is one."""
        victim = wait_until(self._choose, 60, what="a worker to strike")
        if (len(self.killed) + len(self.stopped)) % _STOP_EVERY == _STOP_EVERY - 1:
            self._stop(victim)
        else:
            os.kill(victim, signal.SIGKILL)
            self.killed.append(victim)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pid, timer in list(self._asleep.items()):
            timer.cancel()
            self._wake(pid)

    def _choose(self) -> int | None:
        """One of the healthy workers, but none that sleeps or dies, and none that would be a row's third death.

        A row that was in hand at three deaths is taken for their cause, and rightly ends as a dead letter.
        """
        computed, last = self._journal.computed(), self._journal.last_batches()
        struck = {*self.killed, *self._asleep}
        workers = sorted(
            pid
            for pid in self._pool.workers().values()
            if pid not in struck
            and not (pid in last and any(computed[row] >= _SPARED_BEGINNINGS for row in last[pid].rows))
        )
        return self._chance.choice(workers) if workers else None

    def _stop(self, victim: int) -> None:
        os.kill(victim, signal.SIGSTOP)
        self.stopped.append(victim)
        timer = threading.Timer(self._lease_s * self._chance.uniform(1.3, 2.0), self._wake, [victim])
        self._asleep[victim] = timer
        timer.start()

    def _wake(self, pid: int) -> None:
        self._asleep.pop(pid, None)
        if pid in session_members(self._pool.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
