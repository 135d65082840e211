"""How far a run has come, on disk: replaced in one step after each acknowledged write, and held by one process."""

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from producer.bulk.ends import Json
from producer.errors import ConfigurationError

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Everything before `position` in the source is done: written and acknowledged, or rejected.

    `items` are the records taken so far, `rows` those written, `rejected` those set aside; `mark` is the sink's,
    `rejects_bytes` how long the rejects file was, and `job` the detached job that began the run.
    """

    run: str
    source: str
    sink: str
    fingerprint: Json = None
    position: Json = None
    items: int = 0
    rows: int = 0
    rejected: int = 0
    cached_rows: int = 0
    mark: Json = None
    rejects_bytes: int = 0
    finished: bool = False
    checked: str = ""
    job: str = ""


class CheckpointFile:
    """The checkpoint of one run, in the folder of all; its constructor touches nothing."""

    def __init__(self, folder: Path, run: str) -> None:
        self._folder = folder
        self.path = folder / f"{run}.json"
        self.rejects_path = folder / f"{run}.rejects.jsonl"
        self._lock_path = folder / f"{run}.lock"

    def load(self) -> Checkpoint | None:
        """Read it; None if there is none.

        Raises:
            ConfigurationError: it cannot be read, or another release wrote it.
        """
        try:
            values = json.loads(self.path.read_text(encoding="utf-8"))
            if values.pop("version") != _VERSION:
                raise ValueError("another version")
            return Checkpoint(**values)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigurationError(f"the checkpoint {self.path} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigurationError(f"the checkpoint {self.path} is none of this release: delete it") from error

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace it in one step, and see to it that it is on the disk.

        Raises:
            ConfigurationError: the folder cannot be written; what was there before is still there.
        """
        text = json.dumps({"version": _VERSION, **dataclasses.asdict(checkpoint)})
        partial = self.path.with_suffix(".json.new")
        try:
            with partial.open("w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(self.path)
        except OSError as error:
            raise ConfigurationError(f"the checkpoint {self.path} cannot be written: {error.strerror}") from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from the same run while the block lasts; the lock ends with this process, too.

        Raises:
            ConfigurationError: another process has it, or the folder cannot be written.
        """
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # rejects hold records
            stream = self._lock_path.open("a")
        except OSError as error:
            raise ConfigurationError(
                f"the folder for checkpoints, {self._folder}, cannot be written: {error.strerror} (HEADRACE_STATE_DIR)"
            ) from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigurationError(
                    "this very run is going on in another process: wait for it, or stop it"
                ) from None
            yield
