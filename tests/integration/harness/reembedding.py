"""`headrace reembed` as a process that tests end and start again, its checkpoint, and what a collection holds."""

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from producer.qdrant import QdrantAddress, connect
from tests.integration.harness.processes import Program
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

_PAGE = 1000
_LONGEST_S = 600.0


def write_records(path: Path, texts: Sequence[object]) -> Path:
    """A JSON Lines file of records `{"id", "text", "user"}`, their ids the numbers from 0."""
    lines = (json.dumps({"id": number, "text": text, "user": number % 7}) for number, text in enumerate(texts))
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


class Reembedding:
    """One command line, and all its starts; `source` and `sink` as they are named for good."""

    def __init__(self, site: Site, folder: Path, source: object, sink: object, *flags: str) -> None:
        self._site = site
        self._folder = folder
        self._arguments = [str(source), str(sink), *flags]
        self._sink = str(sink)
        self.starts = 0

    def start(self, *more: str) -> Program:
        """Start it, with more flags such as `--resume`."""
        return self.start_as([*self._arguments, *more])

    def start_as(self, arguments: Sequence[str]) -> Program:
        """Start `headrace reembed` with these arguments instead."""
        self.starts += 1
        command = [sys.executable, "cli.py", "reembed", *arguments]
        return Program(command, self._site.environ(), self._folder / f"start-{self.starts}")

    @property
    def checkpoint(self) -> dict[str, Any]:
        """What is kept of the run; empty before its first write."""
        for path in Path(self._site.state_dir).glob("reembed/*.json"):
            with suppress(FileNotFoundError):  # replaced by a newer one at this moment
                found: dict[str, Any] = json.loads(path.read_text())
                if found.get("sink") == self._sink:
                    return found
        return {}

    @property
    def rows(self) -> int:
        """How many rows are written and kept as such."""
        return int(self.checkpoint.get("rows", 0))

    @property
    def rejects(self) -> list[dict[str, Any]]:
        """The rejects file."""
        (path,) = Path(self._site.state_dir).glob("reembed/*.rejects.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]

    def await_rows(self, program: Program, least: int) -> None:
        """Wait until so many rows are kept, while the program runs."""

        def there() -> bool:
            enough = self.rows >= least
            assert enough or program.running, f"it has ended with code {program.wait()}:\n{program.stderr}"
            return enough

        wait_until(there, _LONGEST_S, what=f"a checkpoint of {least} rows")
        assert program.running, f"it has ended before it could be disturbed:\n{program.stderr}"


def end_by(program: Program, number: signal.Signals) -> int:
    """Send a signal and return the exit code."""
    os.kill(program.pid, number)
    return program.wait()


def rss_mib(pid: int) -> float:
    """Memory of a process; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def stored_points(address: QdrantAddress) -> int:
    """How many points an embedded store has on its disk, without loading them."""
    file = Path(address.path) / "collection" / address.collection / "storage.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM points").fetchone()[0])


def points_of(address: QdrantAddress) -> dict[Any, tuple[Any, Any]]:
    """Everything a collection holds: payload and vector by id."""
    client = connect(address)
    try:
        found: dict[Any, tuple[Any, Any]] = {}
        following: Any = None
        while True:
            page, following = client.scroll(
                address.collection, limit=_PAGE, offset=following, with_payload=True, with_vectors=True
            )
            found |= {point.id: (point.payload, point.vector) for point in page}
            if following is None:
                return found
    finally:
        client.close()
