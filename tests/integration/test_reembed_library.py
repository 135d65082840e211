"""Re-embedding from Python: any iterable as the source, and a sink of one's own."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet

from producer.bulk import Embedded, IterableSource, Order, Space, Totals, open_sink, reembed
from producer.bulk.ends import Embed, Json
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import vectors_of
from tests.integration.harness.site import Site

RECORDS = [{"id": f"r{number}", "name": f"name {number}", "user": number % 2} for number in range(50)]


class DictSink:
    """The smallest sink: a dict, which forgets everything at its end."""

    name = "dict"
    ordered = False
    resumable = False

    def __init__(self) -> None:
        self.held: dict[str | int, list[float]] = {}

    def check(self, space: Space, *, resuming: bool, overwrite: bool) -> None:
        assert space.dimension == 8

    def begin(self, space: Space, mark: Json = None) -> None:
        self.held.clear()

    def write(self, rows: Sequence[Embedded]) -> Json:
        self.held.update({row.record.id: row.vector.tolist() for row in rows})

    def finish(self, totals: Totals, embed: Embed) -> str:
        assert len(self.held) == totals.rows
        return ""

    def close(self) -> None:
        pass


def test_an_iterable_into_a_sink_of_ones_own(solo: Site, tmp_path: Path) -> None:
    sink = DictSink()
    with Engine(solo), solo.producer() as producer:
        order = Order(template="{name}", where=("user=1",))
        outcome = reembed(producer, IterableSource(iter(RECORDS)), sink, order, state_dir=tmp_path)
    expected = [record for record in RECORDS if record["user"] == 1]
    assert outcome.rows == len(expected)
    assert list(sink.held) != []
    assert sink.held == {
        record["id"]: vector.tolist()
        for record, vector in zip(expected, vectors_of([str(record["name"]) for record in expected]), strict=True)
    }


def test_an_iterable_into_a_file(solo: Site, tmp_path: Path) -> None:
    path = tmp_path / "vectors.parquet"
    with Engine(solo), solo.producer() as producer:
        order = Order(template="{name}")
        reembed(producer, IterableSource(RECORDS), open_sink(str(path)), order, state_dir=tmp_path / "state")
    table = pyarrow.parquet.read_table(path)
    assert table.column("id").to_pylist() == [record["id"] for record in RECORDS]
    found = np.array(table.column("embedding").to_pylist(), np.float32)
    assert np.array_equal(found, vectors_of([str(record["name"]) for record in RECORDS]))
