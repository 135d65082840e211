"""`python -m benchmarks.reembed_side WAY SOURCE TARGET URL`: one way through a source, alone in its process.

Ways: `bare` embeds the texts and writes nothing, `fill` writes points and embeds nothing, `run` re-embeds. Prints rows,
rows/s, and its memory when it is warm and at the end, as JSON.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.noop_pool import MODEL, VECTOR
from producer import Producer
from producer.bulk.order import Order
from producer.bulk.pipeline import reembed
from producer.bulk.progress import Progress
from producer.bulk.runs import open_ends
from producer.qdrant import QdrantAddress
from producer.settings import StoreSettings

WARM = 0.25
"""Share of the rows after which memory is read for the first time."""

_POINTS_PER_WRITE = 128


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one way took. Memory is RSS."""

    rows: int
    rows_per_s: float
    warm_mib: float
    end_mib: float


class _Clock:
    """Reads the time and the memory as rows pass."""

    def __init__(self, rows: int) -> None:
        self._warm_rows = rows * WARM
        self._warm_mib = 0.0
        self._started = time.perf_counter()

    def note(self, rows: int) -> None:
        if not self._warm_mib and rows >= self._warm_rows:
            self._warm_mib = _rss_mib()

    def stop(self, rows: int) -> Side:
        took_s = time.perf_counter() - self._started
        return Side(rows=rows, rows_per_s=rows / took_s, warm_mib=self._warm_mib, end_mib=_rss_mib())


def bare(source: Path, _target: str, producer: Producer) -> Side:
    """Embed the texts of a source in order, and drop the vectors."""
    clock, count = _Clock(_lines(source)), 0
    for count, _ in enumerate(producer.iter_embed(record["text"] for record in _records(source)), start=1):
        clock.note(count)
    return clock.stop(count)


def run(source: Path, target: str, producer: Producer) -> Side:
    """Re-embed a source into a target."""
    order = Order(source=str(source), sink=target)
    origin, sink = open_ends(order, StoreSettings())
    clock = _Clock(_lines(source))

    def note(progress: Progress) -> None:
        clock.note(progress.rows)

    outcome = reembed(producer, origin, sink, order, state_dir=source.parent / "state", on_progress=note)
    return clock.stop(outcome.rows)


def fill(source: Path, target: str, _producer: Producer) -> Side:
    """Fill a collection as qdrant-client alone does it: the same points, their vectors at hand."""
    from qdrant_client import QdrantClient, models  # noqa: PLC0415 - only this way needs it

    address = QdrantAddress.parse(target)
    client, records, count = QdrantClient(path=address.path), _records(source), 0
    vector = VECTOR.tolist()
    client.create_collection(address.collection, models.VectorParams(size=len(vector), distance=models.Distance.COSINE))
    clock = _Clock(_lines(source))
    while some := list(islice(records, _POINTS_PER_WRITE)):
        points = [models.PointStruct(id=record["id"], vector=list(vector), payload=record) for record in some]
        client.upsert(address.collection, points)
        count += len(some)
        clock.note(count)
    side = clock.stop(count)
    client.close()
    return side


def _records(source: Path) -> Iterator[dict[str, Any]]:
    with source.open() as lines:
        yield from map(json.loads, lines)


def _lines(source: Path) -> int:
    with source.open("rb") as lines:
        return sum(1 for _ in lines)


def _rss_mib() -> float:
    """What this process holds in memory now (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def _main(way: str, source: str, target: str, url: str) -> None:
    if target.startswith("qdrant"):
        import qdrant_client  # noqa: F401, PLC0415 - seconds that are no part of the way
    with Producer.from_url(url, embed_model=MODEL) as producer:
        print(json.dumps(asdict({"bare": bare, "run": run, "fill": fill}[way](Path(source), target, producer))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
