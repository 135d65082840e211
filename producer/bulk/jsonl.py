"""JSON Lines as a source of records and as a sink of vectors; "-" is standard input or output."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from producer.errors import ConfigurationError, HeadraceError, InvalidRequest
from producer.requests import clean_text
from producer.results import Vector

STANDARD = "-"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One text with the identity it has in its collection."""

    id: Any
    text: str


class JsonlSource:
    """Reads `{"id": …, "text": …}` lines; the names of the two fields are the caller's."""

    def __init__(self, path: str, *, text_field: str, id_field: str, max_text_bytes: int) -> None:
        self.path = path
        self._text_field = text_field
        self._id_field = id_field
        self._max_text_bytes = max_text_bytes

    def count(self) -> int | None:
        """Count the records without decoding them; None for standard input, which can be read once only."""
        if self.path == STANDARD:
            return None
        with _opened(self.path) as lines:
            return sum(1 for line in lines if line.strip())

    def __iter__(self) -> Iterator[Record]:
        """Yield the records in order.

        Raises:
            ConfigurationError: the file cannot be read.
            InvalidRequest: a line is not JSON, lacks a field, or holds a text that cannot be embedded; with its number.
        """
        with _opened(self.path) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    place = "standard input" if self.path == STANDARD else self.path
                    yield self._record(line, f"{place} line {number}")

    def _record(self, line: bytes, place: str) -> Record:
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            raise InvalidRequest(f"{place} is not JSON", code="bad_record") from None
        if not isinstance(fields, dict):
            raise InvalidRequest(f"{place} is not a JSON object", code="bad_record")
        for field in (self._id_field, self._text_field):
            if field not in fields:
                raise InvalidRequest(f"{place} has no field {field!r}", code="bad_record")
        text = clean_text(fields[self._text_field], self._max_text_bytes, what=f"{place}: {self._text_field!r}")
        return Record(id=fields[self._id_field], text=text)


class JsonlSink:
    """Writes `{"id": …, "embedding": […]}` lines to a temporary neighbour, which takes the name when all is done."""

    def __init__(self, path: str, *, overwrite: bool = False) -> None:
        self.path = path
        self._overwrite = overwrite

    @contextmanager
    def open(self) -> Iterator[IO[str]]:
        """Open for writing; what was written becomes visible only if the block ends without an error.

        Raises:
            ConfigurationError: the file exists, or cannot be written.
        """
        if self.path == STANDARD:
            yield sys.stdout
            return
        target = Path(self.path)
        if target.exists() and not self._overwrite:
            raise ConfigurationError(f"{self.path} exists: choose another name, or pass --overwrite")
        partial = ""
        try:
            with NamedTemporaryFile(
                "w", encoding="utf-8", dir=target.parent, prefix=f"{target.name}.", suffix=".part", delete=False
            ) as stream:
                partial = stream.name
                yield stream
            Path(partial).chmod(0o666 & ~_umask())
            Path(partial).replace(target)
        except HeadraceError:
            raise  # a timeout is an OSError, too, but not the file's
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be written: {error.strerror}") from error
        finally:
            if partial:
                Path(partial).unlink(missing_ok=True)

    @staticmethod
    def write(stream: IO[str], record: Record, vector: Vector) -> None:
        """Write one line; the numbers are the shortest that read back as the same float32."""
        numbers = ",".join(str(number) for number in vector)
        stream.write(f'{{"id": {json.dumps(record.id)}, "embedding": [{numbers}]}}\n')


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == STANDARD:
        yield sys.stdin.buffer
        return
    try:
        stream = Path(path).open("rb")  # noqa: SIM115 - the block's errors are not ours
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    with stream:
        yield stream


def _umask() -> int:
    """What a new file of this process may not have; temporary files are made private."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
