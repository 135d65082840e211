"""What the processes of a pool have begun, noted in files that outlive any of them, and the Redis as well."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Begun:
    """One batch at the moment its model began: by which process, when (monotonic seconds), and the rows' names."""

    pid: int
    at_s: float
    rows: tuple[str, ...]


class Journal:
    """A folder with one file for each process; the first word of a text is its row's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def note(self, texts: Sequence[str]) -> None:
        """Note a batch that this process begins: one write, so that a killed process leaves whole lines only."""
        names = " ".join(text.split(maxsplit=1)[0] for text in texts)
        with (self.folder / f"{os.getpid()}.begun").open("ab", buffering=0) as file:
            file.write(f"{time.monotonic():.6f} {names}\n".encode())

    def read(self) -> list[Begun]:
        """All batches so far, in the order in which they began."""
        batches = []
        for file in self.folder.glob("*.begun"):
            for line in file.read_text().splitlines():
                at_s, *rows = line.split()
                batches.append(Begun(pid=int(file.stem), at_s=float(at_s), rows=tuple(rows)))
        return sorted(batches, key=lambda batch: batch.at_s)

    def computed(self) -> Counter[str]:
        """How often each row was begun."""
        return Counter(row for batch in self.read() for row in batch.rows)

    def last_batches(self) -> dict[int, Begun]:
        """What each process has begun last."""
        return {batch.pid: batch for batch in self.read()}

    def release(self, row: str) -> None:
        """Let a row go that the model holds."""
        (self.folder / f"{row}.released").touch()

    def is_released(self, row: str) -> bool:
        return (self.folder / f"{row}.released").exists()
