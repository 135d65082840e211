"""A fake model for which some texts are poison: they raise, give garbage, hang, hoard memory or kill the process.

`python -m tests.integration.harness.poison` is an embed pool with it.
"""

import os
import resource
import signal
import time
from collections.abc import Sequence

import numpy as np

from producer.connection import connect
from producer.results import Vector
from producer.settings import load
from tests.integration.harness.fake_model import FakeModel, Record, describe
from workers.pool import Pool
from workers.process import LoadedModel, configure_logging
from workers.settings import WorkerSettings

POISON_POOL = "tests.integration.harness.poison"

RAISE, NAN, INFINITE, SHORT, HANG, HOARD, KILL = POISONS = (
    "raise:",
    "nan:",
    "infinite:",
    "short:",
    "hang:",
    "hoard:",
    "kill:",
)
"""A text that begins so is poison."""

GROW = "grow:"
"""Not poison, but the process keeps 64 MiB for each such text."""

_SPARE_BYTES = 1 << 30
_BLOCK_BYTES = 64 << 20


class PoisonModel(FakeModel):
    """The fake model until it meets a marked text."""

    def __init__(self, record: Record) -> None:
        super().__init__(lambda batch: record.add([str(text) for text in batch]))
        self._kept: list[bytearray] = []

    def embed(self, texts: Sequence[str]) -> Vector:
        for text in texts:
            self._take(text)
        vectors = super().embed(texts).copy()
        for index, text in enumerate(texts):
            if text.startswith((NAN, INFINITE)):
                vectors[index, 1] = np.nan if text.startswith(NAN) else np.inf
        return vectors[:-1] if any(text.startswith(SHORT) for text in texts) else vectors

    def _take(self, text: str) -> None:
        if text.startswith(RAISE):
            raise ValueError(f"the model does not like {text}")
        if text.startswith(HANG):
            time.sleep(3600)
        if text.startswith(KILL):
            os.kill(os.getpid(), signal.SIGKILL)
        if text.startswith(GROW):
            self._kept.append(bytearray(os.urandom(1 << 20) * 64))
        if text.startswith(HOARD):
            hoard = []
            while True:
                hoard.append(bytearray(_BLOCK_BYTES))


def load_in_pool(settings: WorkerSettings) -> LoadedModel:
    """The `load` of a poisonable pool; its address space is limited, as a container's memory would be."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - one number
        used_bytes = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + _SPARE_BYTES, hard))
    record = Record(connect(settings), settings.namespace)
    return describe("embed", PoisonModel(record), settings.embed_model)


def main() -> None:
    """Run the pool until SIGTERM."""
    settings = load(WorkerSettings, os.environ)
    configure_logging(settings.log_level)
    raise SystemExit(Pool("embed", load_in_pool, settings).run())


if __name__ == "__main__":
    main()
