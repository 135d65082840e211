"""Keeps measured speeds in the cache folder, a file for each model and machine; processes that start together share."""

import fcntl
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from workers.budget import Speed

logger = logging.getLogger("headrace.worker")

Key = Mapping[str, str | int | list[int]]
"""Everything that a speed depends on; kept in the file, and the file's name is made of it."""

_FORMAT = 1
"""Raised whenever speeds are measured or written in another way."""

_POLL_S = 0.05
_LONGEST_WAIT_S = 60.0


class KeptSpeeds:
    """The speeds for one key in a folder that may be missing, unwritable or full of rubbish."""

    def __init__(self, folder: Path, key: Key) -> None:
        self._folder = folder
        self._content = {"format": _FORMAT, "key": dict(key)}
        name = sha256(json.dumps(self._content, sort_keys=True).encode()).hexdigest()[:32]
        self.path = folder / f"{name}.json"

    def get(self, measure: Callable[[], Sequence[Speed]]) -> list[Speed]:
        """What is kept, or else what `measure` finds; one process at a time measures, the others wait and read.

        All keys share one lock, since models that are measured at the same time would disturb each other.
        """
        if kept := self.read():
            return kept
        measured: list[Speed] | None = None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with _alone(self._folder / "lock"):
                if kept := self.read():
                    return kept
                measured = list(measure())
                self._write(measured)
        except OSError as error:
            logger.warning("the calibration cannot be kept in %s: %s", self._folder, error.strerror or error)
        return list(measure()) if measured is None else measured

    def read(self) -> list[Speed]:
        """What is kept; nothing if the file is missing, or is not one of ours."""
        try:
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return []
        if not isinstance(found, dict) or {name: found.get(name) for name in self._content} != self._content:
            return []
        entries = found.get("speeds")
        return [_speed(entry) for entry in entries] if isinstance(entries, list) and all(map(_fits, entries)) else []

    def _write(self, speeds: Sequence[Speed]) -> None:
        """Put the file in place as a whole; nothing is kept of a measurement that failed."""
        if not speeds:
            return
        entries = [{"budget_tokens": speed.budget_tokens, "tokens_per_s": speed.tokens_per_s} for speed in speeds]
        unfinished = self.path.with_suffix(f".{os.getpid()}")
        try:
            unfinished.write_text(json.dumps({**self._content, "speeds": entries}, indent=1) + "\n")
            unfinished.replace(self.path)
        finally:
            unfinished.unlink(missing_ok=True)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a lock file; the kernel lets go of it however this process ends.

    Raises:
        TimeoutError: somebody else has held it for a minute, and may hang.
    """
    deadline = time.monotonic() + _LONGEST_WAIT_S
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError("another process does not let go of it") from None
                time.sleep(_POLL_S)
        yield


def _fits(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    tokens, rate = entry.get("budget_tokens"), entry.get("tokens_per_s")
    return isinstance(tokens, int) and tokens > 0 and isinstance(rate, float) and 0 < rate < math.inf


def _speed(entry: Any) -> Speed:
    return Speed(budget_tokens=entry["budget_tokens"], tokens_per_s=entry["tokens_per_s"])
