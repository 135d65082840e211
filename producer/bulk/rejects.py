"""Rows that could not be embedded, in a file of their own with the reason."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from producer.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Reject:
    """A row set aside: where it was, what it was, and why."""

    place: str
    id: str | int | None
    code: str
    reason: str
    fields: Any
    """The record itself, for whoever repairs it; None where there was none."""

    def line(self) -> str:
        values = {"place": self.place, "id": self.id, "code": self.code, "reason": self.reason, "record": self.fields}
        return json.dumps(values, default=str) + "\n"


class RejectsFile:
    """A JSON Lines file beside the checkpoint, which knows how long it was; the constructor touches nothing."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self.size_bytes = size_bytes

    def begin(self) -> None:
        """Cut off what came after the checkpoint; without any rejects there is no file.

        Raises:
            ConfigurationError: the file cannot be written, or is shorter than it was.
        """
        with self._errors():
            if self.size_bytes == 0:
                self.path.unlink(missing_ok=True)
                return
            with self.path.open("r+b") as stream:
                if stream.seek(0, os.SEEK_END) < self.size_bytes:
                    raise ConfigurationError(f"the rejects file {self.path} is shorter than its checkpoint says")
                stream.truncate(self.size_bytes)

    def append(self, rejects: list[Reject]) -> None:
        """Write rejects, durably.

        Raises:
            ConfigurationError: the file cannot be written.
        """
        if not rejects:
            return
        data = "".join(reject.line() for reject in rejects).encode(errors="backslashreplace")
        with self._errors(), self.path.open("ab") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        self.size_bytes += len(data)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigurationError(f"the rejects file {self.path} cannot be written: {error.strerror}") from error
