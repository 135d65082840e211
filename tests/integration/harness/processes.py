"""Programs under test as real processes, each the leader of a session of its own, ended by their handles."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from producer.wire.models import TaskName
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

ROOT = Path(__file__).resolve().parents[3]
FAKE_POOL = "tests.integration.harness.fake_pool"


class Program:
    """A running command, by default in the repository's root; its output goes to two files of `folder`."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], folder: Path, *, directory: Path = ROOT
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / "stdout", folder / "stderr"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                command,
                cwd=directory,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdout(self) -> str:
        """What it has printed so far."""
        return self._out.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        """What it has logged so far."""
        return self._err.read_text(errors="replace")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def terminate(self) -> None:
        """Send SIGTERM to the program itself."""
        self._process.terminate()

    def kill(self) -> None:
        """Send SIGKILL to the program itself, and not to what it started."""
        self._process.kill()
        self._process.wait()

    def kill_all(self) -> None:
        """Send SIGKILL to the program and everything in its session."""
        for pid in session_members(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def wait(self, timeout_s: float = 60.0) -> int:
        """Wait for its end and return the exit code."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self._process.args!r} did not end:\n{self.stderr}") from None

    def stop(self) -> None:
        """End it in order if it runs, and by force whatever it leaves."""
        if self.running:
            self.terminate()
        try:
            self.wait()
        finally:
            self.kill_all()


class PoolProgram(Program):
    """A worker pool."""

    def __init__(
        self, site: Site, module: str, environ: Mapping[str, str], folder: Path, *, task: TaskName = "embed"
    ) -> None:
        super().__init__([sys.executable, "-m", module], environ, folder)
        self._site = site
        self._task = task

    def workers(self) -> dict[str, int]:
        """Name and pid of this pool's healthy workers."""
        members = session_members(self.pid)
        with self._site.producer() as producer:
            found = producer.queue_state(self._task).workers
        return {
            worker.name: worker.heartbeat.pid for worker in found if worker.healthy and worker.heartbeat.pid in members
        }

    def await_healthy(self, count: int = 1) -> dict[str, int]:
        """Wait until so many workers are healthy; return them by name."""

        def healthy() -> dict[str, int]:
            assert self.running, f"the pool has ended with code {self.wait()}:\n{self.stderr}"
            workers = self.workers()
            return workers if len(workers) == count else {}

        return wait_until(healthy, 60, what=f"a pool with {count} healthy workers")


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet reaped does not."""
    return (fields := _stat(pid)) is not None and fields[0] not in "ZX"


def session_members(leader: int) -> set[int]:
    """The running processes of a session."""
    return {pid for pid, fields in _processes().items() if fields[3] == str(leader) and fields[0] not in "ZX"}


def descendants(ancestor: int) -> set[int]:
    """The running processes that a process has started, directly or not."""
    children: dict[int, set[int]] = {}
    for pid, fields in _processes().items():
        if fields[0] not in "ZX":
            children.setdefault(int(fields[1]), set()).add(pid)
    found: set[int] = set()
    fresh = {ancestor}
    while fresh:
        fresh = {child for parent in fresh for child in children.get(parent, ())} - found
        found |= fresh
    return found


def _processes() -> dict[int, list[str]]:
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return {pid: fields for pid in pids if (fields := _stat(pid)) is not None}


def _stat(pid: int) -> list[str] | None:
    """State, parent, process group and session, from proc(5); None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
    except (FileNotFoundError, ProcessLookupError):
        return None
