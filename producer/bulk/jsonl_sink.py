"""JSON Lines as a sink of vectors: a file, a gzip file, or standard output."""

import errno
import gzip
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from producer.bulk.ends import Embed, Embedded, Json, Space, Totals
from producer.bulk.files import (
    STANDARD,
    Part,
    absolute,
    check_target,
    hidden,
    opened,
    publish,
    refusal,
    unwritable,
    zipped,
)
from producer.errors import ConfigurationError, VerificationFailed

_BLOCK_BYTES = 1 << 20
_GZIP_LEVEL = 4  # digits pack to 0.42 of their size; to 0.39 at level 9, in seven times the time


class JsonlSink:
    """Writes `{"id": …, "embedding": […]}` lines to a hidden neighbour, which takes the name when all is done.

    A mark is its length in bytes. In a gzip file each write is a member of its own, so that the file can be cut at
    any mark. What is written to standard output cannot be taken up again.
    """

    ordered = True

    def __init__(self, path: str) -> None:
        """`path` is "-" for standard output; a name that ends in .gz is gzip."""
        self.path = path
        self.name = absolute(path)
        self.resumable = path != STANDARD
        self._part: Part | None = None
        self._length = 0

    def check(self, space: Space, *, resuming: bool, overwrite: bool) -> None:
        """Raise ConfigurationError if the file exists (and neither resuming nor overwrite), or cannot be written."""
        if self.path != STANDARD:
            check_target(self.path, self._neighbour(space), replace=resuming or overwrite)

    def begin(self, space: Space, mark: Json = None) -> None:
        """Open the neighbour, empty or as it was at a mark. If the run has been stopped after the neighbour took the
        name, there is nothing to write to, and `finish` only looks again."""
        if self.path == STANDARD:
            if mark is not None:
                raise ConfigurationError(
                    "what was written to standard output cannot be resumed: start without --resume"
                )
            return
        part = Part(self._neighbour(space), self.path)
        self._part, self._length = None, mark or 0
        if mark is not None and _length_of(part.path) is None and _length_of(Path(self.path)) == mark:
            return
        part.begin(mark)
        self._part = part

    def write(self, rows: Sequence[Embedded]) -> Json:
        """Write a line for each row; the numbers are the shortest that read back as the same float32.

        Raises:
            ConfigurationError: it cannot be written, such as on a full disk; the rows before stay.
        """
        if rows:
            self._append("".join(map(_line, rows)).encode())
        return self._length if self.resumable else None

    def finish(self, totals: Totals, embed: Embed) -> str:
        """Count the lines and give the neighbour its name."""
        if self.path == STANDARD:
            return ""
        if self._part is not None and zipped(self.path) and not self._length:
            self._append(b"")  # gzip data of nothing is not nothing
        lines = self._count_lines()
        if lines != totals.rows:
            raise VerificationFailed(
                f"{self.path} would have {lines:,} lines instead of {totals.rows:,}: start again without --resume"
            )
        if self._part is not None:
            try:
                publish(self._part.path, Path(self.path))
            except OSError as error:
                raise unwritable(self.path, error) from error
            self._part = None
        return f"{lines:,} lines counted"

    def close(self) -> None:
        """Nothing is open between two writes; the neighbour can be taken up at the last mark; an empty one goes."""
        if self._part is not None and not self._length:
            with suppress(OSError):
                self._part.path.unlink()

    def _neighbour(self, space: Space) -> Path:
        # The name's end says how it is opened.
        return hidden(self.path, space.run, "part.gz" if zipped(self.path) else "part")

    def _append(self, data: bytes) -> None:
        if self._part is not None:
            self._length = self._part.append(gzip.compress(data, _GZIP_LEVEL, mtime=0) if zipped(self.path) else data)
        elif self.path == STANDARD:
            _print(data)
        else:
            raise ConfigurationError(f"{self.path} is finished: start without --resume")

    def _count_lines(self) -> int:
        with opened(self.path if self._part is None else str(self._part.path)) as stream:
            return sum(block.count(b"\n") for block in iter(lambda: stream.read(_BLOCK_BYTES), b""))


def _line(row: Embedded) -> str:
    numbers = ",".join(str(number) for number in row.vector)
    return f'{{"id": {json.dumps(row.record.id)}, "embedding": [{numbers}]}}\n'


def _print(data: bytes) -> None:
    try:
        if sys.stdout is None:
            raise refusal(errno.EBADF)
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise  # whoever read it has seen enough
    except OSError as error:
        raise unwritable(STANDARD, error) from error


def _length_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
