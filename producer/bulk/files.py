"""What sources and sinks that are files share: opening, looking beforehand, and a hidden part that takes the name."""

import errno
import gzip
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, cast

from producer.bulk.ends import Json
from producer.errors import ConfigurationError

STANDARD = "-"
"""Standard input as a source, standard output as a sink."""


def absolute(path: str) -> str:
    """How a file is named for good: absolute, unless it is no file."""
    return path if path == STANDARD else str(Path(path).absolute())


def zipped(path: str) -> bool:
    """Whether a file is gzip, by its name."""
    return path.endswith(".gz")


def refusal(number: int) -> OSError:
    """The error that the system would raise with this `errno`."""
    return OSError(number, os.strerror(number))


def unreadable(path: str, error: OSError) -> ConfigurationError:
    """One line for a file that cannot be read."""
    name = "standard input" if path == STANDARD else path
    return ConfigurationError(f"{name} cannot be read: {error.strerror or error}")


def unwritable(path: str, error: OSError) -> ConfigurationError:
    """One line for a file that cannot be written."""
    name = "standard output" if path == STANDARD else path
    return ConfigurationError(f"{name} cannot be written: {error.strerror or error}")


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Open for reading, unzipped if it is gzip; standard input stays open. Errors of reading in the block are mapped.

    Raises:
        ConfigurationError: it cannot be read, or is gzip that is not whole.
    """
    try:
        with _stream(path) as stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise ConfigurationError(f"{path} is cut off or damaged: it is not whole gzip data") from None
    except OSError as error:
        raise unreadable(path, error) from error


@contextmanager
def _stream(path: str) -> Iterator[IO[bytes]]:
    if path == STANDARD:
        if sys.stdin is None:
            raise refusal(errno.EBADF)
        yield sys.stdin.buffer
        return
    with Path(path).open("rb") as stream:
        if not zipped(path):
            yield stream
            return
        if rereadable(path) and os.fstat(stream.fileno()).st_size == 0:
            raise EOFError  # gzip would take it for the end
        with gzip.GzipFile(fileobj=stream) as unzipped:
            yield cast(IO[bytes], unzipped)


def rereadable(path: str) -> bool:
    """Whether it can be read from its beginning again, as standard input and pipes cannot.

    Raises:
        ConfigurationError: it is not there, or is a folder.
    """
    if path == STANDARD:
        return False
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise refusal(errno.EISDIR)
    except OSError as error:
        raise unreadable(path, error) from error
    return stat.S_ISREG(mode)


def fingerprint(path: str) -> Json:
    """What changes when a file does; None for what can be read only once."""
    if not rereadable(path):
        return None
    try:
        found = Path(path).stat()
    except OSError as error:
        raise unreadable(path, error) from error
    return {"bytes": found.st_size, "mtime_ns": found.st_mtime_ns}


def hidden(path: str, run: str, suffix: str) -> Path:
    """The neighbour of a file in which a run gathers it."""
    target = Path(path)
    return target.with_name(f".{target.name}.{run}.{suffix}")


def check_target(path: str, neighbour: Path, *, replace: bool) -> None:
    """Look whether a file could be written, by way of its neighbour; change nothing.

    Raises:
        ConfigurationError: it exists and is not to be replaced, or cannot be written.
    """
    target = Path(path)
    try:
        with suppress(FileNotFoundError):
            mode = target.stat().st_mode
            if stat.S_ISDIR(mode):
                raise refusal(errno.EISDIR)
            if not stat.S_ISREG(mode):
                raise ConfigurationError(f"{path} cannot be written: it is not a regular file")
            if not replace:
                raise ConfigurationError(f"{path} exists: choose another name, or pass --overwrite")
        target.parent.stat()
        with suppress(FileNotFoundError):
            neighbour.lstat()  # its name may be too long where the target's is not
        if not os.access(target.parent, os.W_OK | os.X_OK):
            read_only = os.statvfs(target.parent).f_flag & os.ST_RDONLY
            raise refusal(errno.EROFS if read_only else errno.EACCES)
    except OSError as error:
        raise unwritable(path, error) from error


def publish(part: Path, target: Path) -> None:
    """Give a part that is on disk the name of its target, in one step and for good."""
    part.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder outlive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Part:
    """A hidden file that grows by whole writes and can be taken up after any of them; a mark is its length then."""

    def __init__(self, path: Path, shown: str) -> None:
        """`shown` is the target's name, for messages."""
        self.path = path
        self._shown = shown
        self._length = 0

    def begin(self, mark: int | None) -> None:
        """Make it empty, or as it was at a mark, without what came after.

        Raises:
            ConfigurationError: it cannot be written, or is not there up to the mark.
        """
        try:
            if mark is None:
                self.path.unlink(missing_ok=True)
                self.path.open("xb").close()
                sync_folder(self.path.parent)
            elif not self.path.exists() or self.path.stat().st_size < mark:
                raise ConfigurationError(f"{self.path} is not whole any more: start without --resume")
            else:
                os.truncate(self.path, mark)
        except OSError as error:
            raise unwritable(self._shown, error) from error
        self._length = mark or 0

    def append(self, data: bytes) -> int:
        """Write all of it to the disk and return the new mark, or none of it.

        Raises:
            ConfigurationError: it cannot be written, such as on a full disk.
        """
        left = memoryview(data)
        try:
            with self.path.open("r+b", buffering=0) as stream:
                stream.seek(self._length)
                while left:
                    left = left[stream.write(left) :]
                os.fsync(stream.fileno())
        except OSError as error:
            with suppress(OSError):
                os.truncate(self.path, self._length)
            raise unwritable(self._shown, error) from error
        self._length += len(data)
        return self._length
