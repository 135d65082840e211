"""What a run asks of its ends: order where it counts, whole portions, a source and a sink that stay as they were."""

import os
from pathlib import Path
from typing import cast

import pytest

from producer.bulk.jsonl_sink import JsonlSink
from producer.bulk.jsonl_source import JsonlSource
from producer.bulk.order import Order
from producer.bulk.pipeline import reembed
from producer.client import Producer
from producer.errors import ConfigurationError
from tests.unit.reembedding import FakeProducer, MemorySink, MemorySource, records, start

WINDOW = 8
ROWS = 60


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine goes down in these tests."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_of_records_with_one_identity_the_last_is_kept(tmp_path: Path, seed: int) -> None:
    items = [{"id": number % 5, "text": f"text {number}"} for number in range(ROWS)]
    sink = MemorySink(ordered=False)
    start(MemorySource(items, unique_ids=False), sink, tmp_path, seed=seed, window=WINDOW)
    assert {text for text, _ in sink.collection.values()} == {f"text {number}" for number in range(ROWS - 5, ROWS)}


def test_a_sink_that_wants_order_is_written_to_as_seldom_as_another(tmp_path: Path) -> None:
    sink = MemorySink(ordered=True)
    start(MemorySource(records(400)), sink, tmp_path, window=40)
    assert sink.writes <= 400 // 10 + 1


def test_a_run_that_is_finished_says_so_only_of_the_source_it_has_read(tmp_path: Path) -> None:
    source = MemorySource(records(5))
    sink = MemorySink(ordered=True)
    start(source, sink, tmp_path)
    source.version = 2
    with pytest.raises(ConfigurationError, match="memory has changed"):
        start(source, sink, tmp_path, resume=True)


def test_a_finished_run_whose_file_is_gone_is_not_done(tmp_path: Path) -> None:
    sink = MemorySink(ordered=True, name=str(tmp_path / "removed.jsonl"))
    start(MemorySource(records(5)), sink, tmp_path)
    with pytest.raises(ConfigurationError, match="is gone: begin anew"):
        start(MemorySource(records(5)), sink, tmp_path, resume=True)


def test_a_file_is_not_replaced_by_its_own_vectors(tmp_path: Path) -> None:
    path, link = tmp_path / "contacts.jsonl", tmp_path / "link.jsonl"
    path.write_text('{"id": 1, "text": "one"}')
    link.symlink_to(path)
    source, sink = JsonlSource(str(path), "id"), JsonlSink(str(link))
    with pytest.raises(ConfigurationError, match="is the source"):
        reembed(cast(Producer, FakeProducer(1)), source, sink, Order(overwrite=True), state_dir=tmp_path)
    assert path.read_text() == '{"id": 1, "text": "one"}'
