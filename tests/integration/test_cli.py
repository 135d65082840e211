"""The commands with real pools behind them: what they print, and what `reembed` leaves on disk."""

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from cli import main
from tests.integration.conftest import OfflinePools
from tests.integration.harness.commands import call, check_one_line, check_success, run
from tests.integration.harness.site import Site

EMBED_KEYS = {"model", "dimension", "embedding", "cached", "latency_ms"}
RERANK_KEYS = {"model", "results", "count", "latency_ms"}
RECORDS = [{"id": f"record-{number}", "text": f"a record about topic {number % 17}"} for number in range(30)]


@pytest.fixture(scope="module")
def site(offline: OfflinePools) -> Site:
    """The namespace that both offline pools serve."""
    return offline.site


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """RECORDS as JSON lines."""
    path = tmp_path / "source.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return path


@pytest.fixture
def sink(tmp_path: Path) -> Path:
    """Where vectors go; not there yet."""
    return tmp_path / "sink.jsonl"


def test_embed_prints_one_json_object_a_line(site: Site) -> None:
    texts = ["a first text, embedded here alone", "a second one"]
    first, again = (run(site, "enqueue", "embed", "--json", *texts) for _ in range(2))
    objects = [_lines(done.stdout) for done in (first, again)]
    with site.producer() as producer:
        expected = producer.embed_many(texts, kind="query")
    for index in range(2):
        for printed in objects:
            assert printed[index].keys() == EMBED_KEYS
            assert (printed[index]["model"], printed[index]["dimension"]) == ("offline", 384)
            assert np.array_equal(np.array(printed[index]["embedding"], np.float32), expected[index])
    assert [printed["cached"] for printed in objects[0] + objects[1]] == [False, False, True, True]
    assert first.stderr == ""


def test_embed_prints_a_table(site: Site) -> None:
    printed = check_success(call(site, "enqueue", "embed", "--kind", "passage", "a text [for] the table"))
    assert "offline, 384 dimensions" in printed
    assert "a text [for] the table" in printed
    assert "worker" in printed


def test_embed_reads_lines_from_standard_input(site: Site) -> None:
    done = call(site, "enqueue", "embed", "--json", "before", "-", "after", stdin="line one\n\n  line two\n")
    printed = _lines(check_success(done))
    with site.producer() as producer:
        expected = producer.embed_many(["before", "line one", "line two", "after"], kind="query")
    assert np.array_equal(np.array([line["embedding"] for line in printed], np.float32), expected)


def test_rerank_prints_one_json_object(site: Site) -> None:
    documents = ["a form for taxes", "a lake to swim in", "a book about stars"]
    done = run(site, "enqueue", "rerank", "swimming in a lake", *documents, "--top-n", "2", "--json")
    printed = json.loads(done.stdout)
    with site.producer() as producer:
        expected = producer.rerank("swimming in a lake", documents, 2)
    assert printed.keys() == RERANK_KEYS
    assert (printed["model"], printed["count"]) == ("offline", 2)
    assert printed["results"] == [
        {"index": result.index, "score": result.score, "document": result.document} for result in expected.results
    ]
    assert printed["results"][0]["document"] == "a lake to swim in"


def test_rerank_prints_a_table(site: Site) -> None:
    printed = check_success(call(site, "enqueue", "rerank", "a lake", "-", stdin="water\nfire\n"))
    assert "water" in printed
    assert "fire" in printed


def test_reembed_writes_ids_and_vectors_in_order(site: Site, source: Path, sink: Path) -> None:
    done = run(site, "reembed", str(source), str(sink), "--window", "7")
    assert done.returncode == 0, done.stderr
    assert "30 rows written" in done.stderr
    _check_vectors(site, sink.read_text())


def test_reembed_writes_to_standard_output(site: Site, source: Path) -> None:
    done = run(site, "reembed", "-", "-", stdin=source.read_text())
    assert done.returncode == 0, done.stderr
    _check_vectors(site, done.stdout)


def test_reembed_reads_the_fields_it_is_told(site: Site, tmp_path: Path, sink: Path) -> None:
    source = tmp_path / "contacts.jsonl"
    source.write_text('{"key": 7, "title": "a contact"}\n')
    check_success(call(site, "reembed", str(source), str(sink), "--field", "title", "--id", "key", "--kind", "query"))
    (printed,) = _lines(sink.read_text())
    with site.producer() as producer:
        assert np.array_equal(np.array(printed["embedding"], np.float32), producer.embed("a contact", kind="query"))
    assert printed["id"] == 7


def test_reembed_replaces_only_when_told(site: Site, source: Path, sink: Path) -> None:
    sink.write_text("precious")
    check_one_line(call(site, "reembed", str(source), str(sink)), "--overwrite")
    assert sink.read_text() == "precious"
    check_success(call(site, "reembed", str(source), str(sink), "--overwrite"))
    _check_vectors(site, sink.read_text())


def test_a_reembed_that_fails_in_the_middle_leaves_nothing(site: Site, source: Path, sink: Path) -> None:
    with source.open("a") as stream:
        stream.write("this is not JSON\n")
    check_one_line(call(site, "reembed", str(source), str(sink), "--window", "4"), "line 31 is not JSON")
    assert list(sink.parent.iterdir()) == [source]


def test_a_dry_run_counts_and_writes_nothing(site: Site, tmp_path: Path, sink: Path) -> None:
    source = tmp_path / "source.jsonl"
    texts = [f"a dry text {number}" for number in range(5)]
    source.write_text("".join(json.dumps({"id": text, "text": text}) + "\n" for text in texts))
    with site.producer() as producer:
        producer.embed_many(texts[:2])
        printed = check_success(call(site, "reembed", str(source), str(sink), "--dry-run"))
        assert producer.cached(texts) == [True, True, False, False, False]
    assert not sink.exists()
    rows = {line.strip("│ ").split("│")[0].strip(): line for line in printed.splitlines() if "│" in line}
    assert " 5 " in rows["rows"]
    assert " 2 " in rows["cached"]
    assert "3 rows" in rows["to compute"]


def test_status_shows_both_queues(site: Site) -> None:
    printed = check_success(call(site, "status", COLUMNS="200"))
    assert site.queue("embed").tag in printed
    assert site.queue("rerank").tag in printed
    assert "interactive" in printed
    assert "running" in printed


def test_status_prints_json(site: Site) -> None:
    shown = json.loads(run(site, "status", "--json").stdout)["queues"]
    queues = [queue for queue in shown if queue["model"] == "offline"]  # other tests bring further pools
    assert [(queue["task"], queue["model"]) for queue in queues] == [("embed", "offline"), ("rerank", "offline")]
    for queue in queues:
        assert queue["lanes"].keys() == {"interactive", "bulk"}
        assert [worker["state"] for worker in queue["workers"]] == ["running"]
        assert queue["workers"][0]["model_loaded"] is True


def test_health_is_zero_with_a_healthy_worker(site: Site) -> None:
    for task in ("embed", "rerank"):
        assert "1 of 1 workers healthy" in check_success(call(site, "health", task, "--here"))


def test_every_command_has_help_with_an_example(solo: Site) -> None:
    commands = list(_leaves(main, ()))
    assert ("enqueue", "embed") in commands
    for command in commands:
        for flag in ("--help", "-h"):
            printed = check_success(call(solo, *command, flag))
            assert f"Example: headrace {' '.join(command)}" in printed


def _leaves(command: click.Command, path: tuple[str, ...]) -> Any:
    if isinstance(command, click.Group):
        for name, member in command.commands.items():
            yield from _leaves(member, (*path, name))
    else:
        yield path


def _check_vectors(site: Site, text: str) -> None:
    """Check that there is one line for each of RECORDS, in order, with the library's vector."""
    printed = _lines(text)
    assert [line["id"] for line in printed] == [record["id"] for record in RECORDS]
    with site.producer() as producer:
        expected = producer.embed_many([record["text"] for record in RECORDS], kind="passage")
    assert np.array_equal(np.array([line["embedding"] for line in printed], np.float32), expected)


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
