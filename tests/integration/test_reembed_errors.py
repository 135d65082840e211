"""Bad input to `reembed`: one clear line each, and nothing half-done."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from producer.qdrant import QdrantAddress, connect
from tests.integration.harness.commands import call, check_one_line, check_success
from tests.integration.harness.engine import Engine
from tests.integration.harness.site import Site

RECORDS = [{"id": number, "name": f"name {number}", "notes": None} for number in range(30)]


@pytest.fixture
def served(solo: Site) -> Iterator[Site]:
    """A namespace that a fake pool serves: vectors of 8 dimensions."""
    with Engine(solo):
        with solo.producer() as producer:
            producer.embed("there is a model card")
        yield solo


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """An embedded store with a collection of 4 dimensions, and an alias of it."""
    from qdrant_client import models

    path = tmp_path / "store"
    client = connect(QdrantAddress(collection="old", path=str(path)), create=True)
    client.create_collection("old", models.VectorParams(size=4, distance=models.Distance.COSINE))
    alias = models.CreateAlias(collection_name="old", alias_name="live")
    client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
    client.create_collection("small", models.VectorParams(size=4, distance=models.Distance.COSINE))
    client.close()
    return path


def test_fields_that_no_record_has(served: Site, source: Path, tmp_path: Path) -> None:
    done = call(served, "reembed", str(source), str(tmp_path / "sink.jsonl"), "--text", "{nam} {not}")
    check_one_line(done, "no field 'nam', 'not'", "there are: id, name, notes")
    check_one_line(call(served, "reembed", str(source), "-", "--field", "name", "--id", "key"), "no field 'key'")
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("template", ["no braces", "{name", "{name.__class__!r}", "{notes[3]}", ""])
def test_what_is_no_template(served: Site, source: Path, template: str) -> None:
    check_one_line(call(served, "reembed", str(source), "-", "--text", template), "template")


def test_a_text_told_twice(served: Site, source: Path) -> None:
    check_one_line(
        call(served, "reembed", str(source), "-", "--text", "{name}", "--field", "name"), "--text and --field"
    )


@pytest.mark.parametrize("condition", ["user_id", "=5"])
def test_what_is_no_condition(served: Site, source: Path, condition: str) -> None:
    check_one_line(call(served, "reembed", str(source), "-", "--where", condition), "FIELD=VALUE")


def test_nobody_fits(served: Site, source: Path, tmp_path: Path) -> None:
    sink = tmp_path / "sink.jsonl"
    done = call(served, "reembed", str(source), str(sink), "--field", "name", "--where", "name=nobody")
    check_one_line(done, "no record of", "fits name=nobody")
    assert not sink.exists()


def test_a_truncated_gzip(served: Site, source: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    lines = "".join(json.dumps({"id": n, "text": rng.bytes(40).hex()}) + "\n" for n in range(2000))
    cut, sink = tmp_path / "cut.jsonl.gz", tmp_path / "sink.jsonl"
    cut.write_bytes(gzip.compress(lines.encode())[:-20])
    check_one_line(call(served, "reembed", str(cut), str(sink)), str(cut), "cut off or damaged")
    assert not sink.exists()


def test_a_truncated_parquet(served: Site, tmp_path: Path) -> None:
    whole, cut, sink = tmp_path / "whole.parquet", tmp_path / "cut.parquet", tmp_path / "sink.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"id": n, "text": f"text {n}"} for n in range(100)]), whole)
    cut.write_bytes(whole.read_bytes()[:-100])
    check_one_line(call(served, "reembed", str(cut), str(sink)), str(cut))
    assert not sink.exists()
    check_success(call(served, "reembed", str(whole), str(sink)))
    assert pyarrow.parquet.read_metadata(sink).num_rows == 100


def test_a_line_that_is_not_json_far_into_the_file(served: Site, tmp_path: Path) -> None:
    source, sink = tmp_path / "source.jsonl", tmp_path / "sink.jsonl"
    lines = [json.dumps({"id": number, "text": f"text {number}"}) for number in range(400)]
    source.write_text("\n".join([*lines, "{oops", *lines]))
    check_one_line(call(served, "reembed", str(source), str(sink), "--window", "32"), "line 401 is not JSON")
    assert not sink.exists()


def test_damaged_lines_are_set_aside_if_failures_are_allowed(served: Site, tmp_path: Path) -> None:
    source, sink = tmp_path / "source.jsonl", tmp_path / "sink.jsonl"
    source.write_text('{"id": 1, "text": "good"}\n{oops\n{"id": 2, "text": "good, too"}\n')
    check_one_line(call(served, "reembed", str(source), str(sink)), "line 2 is not JSON", "--max-failures")
    check_one_line(call(served, "reembed", str(source), str(sink), "--dry-run"), "line 2 is not JSON")
    done = call(served, "reembed", str(source), str(sink), "--max-failures", "1")
    check_success(done)
    assert "2 rows written" in done.stderr
    assert "1 row rejected" in done.stderr
    assert len(sink.read_text().splitlines()) == 2


def test_misspelt_words(served: Site, source: Path, tmp_path: Path) -> None:
    check_one_line(call(served, "reembed", "swtich", "contacts"), "Did you mean 'switch'?")
    check_one_line(call(served, "reembed", str(source), "-", "--field", "nme", "--dry-run"), "no field 'nme'")
    blank = tmp_path / "blank.jsonl"
    blank.write_text('{"id": 1, "text": " "}\n')
    check_one_line(call(served, "reembed", str(blank), "-", "--dry-run"), "every row would be rejected")


def test_a_collection_goes_on_with_the_template_it_was_filled_by(served: Site, source: Path, tmp_path: Path) -> None:
    first, second = (f"qdrant+local:{tmp_path / 'new'}#{name}" for name in ("v1", "v2"))
    check_success(call(served, "reembed", str(source), first, "--text", "{name}, and {notes}"))
    done = call(served, "reembed", first, second)
    check_success(done)
    assert "text {name}, and {notes}" in done.stderr
    assert "30 points, 30 of them embedded again" in done.stderr


@pytest.mark.parametrize("sink", ["/dev/null/sink.jsonl", "/no/such/folder/sink.parquet", "qdrant+local:/dev/null/x#c"])
def test_a_sink_that_cannot_be_written(served: Site, source: Path, sink: str) -> None:
    check_one_line(call(served, "reembed", str(source), sink, "--field", "name"), "cannot be")


def test_collections_that_cannot_be_filled(served: Site, source: Path, store: Path) -> None:
    for name, reason in (("small", "4 dimensions"), ("old", "serves old"), ("live", "headrace reembed switch live")):
        done = call(served, "reembed", str(source), f"qdrant+local:{store}#{name}", "--field", "name")
        check_one_line(done, reason)
    done = call(served, "reembed", f"qdrant+local:{store}#none", "-", "--field", "name")
    check_one_line(done, "no collection or alias 'none'", "live, old, small")


def test_an_unreachable_qdrant(served: Site, source: Path) -> None:
    nobody = "qdrant://127.0.0.1:1/contacts"
    check_one_line(call(served, "reembed", str(source), nobody, "--field", "name"), "cannot be reached")
    check_one_line(call(served, "reembed", nobody, "-"), "cannot be reached")
    check_one_line(call(served, "reembed", "switch", nobody, "--to", "x"), "cannot be reached")
    check_one_line(call(served, "reembed", "rollback", nobody), "cannot be reached")


def test_advice_names_no_password(served: Site, source: Path) -> None:
    place = served.url.removeprefix("redis://")
    for url in (f"redis://default:pa55%2Fw0rd@{place}", f"redis://{place}?username=default&password=pa55"):
        done = call(served, "reembed", str(source), "qdrant://127.0.0.1:1/new", "--field", "name", "--redis-url", url)
        check_one_line(done, "go on with: headrace reembed ", "***")
        assert "pa55" not in done.output


@pytest.mark.parametrize("url", ["qdrant://host", "qdrant://user:pw@host/c", "qdrant+local:folder", "qdrant+ftp://h/c"])
def test_urls_that_are_none(served: Site, source: Path, url: str) -> None:
    done = call(served, "reembed", str(source), url, "--field", "name")
    check_one_line(done)
    assert "pw" not in done.stderr


def test_unknown_aliases(served: Site, store: Path) -> None:
    for command in ("switch", "rollback"):
        check_one_line(call(served, "reembed", command, f"qdrant+local:{store}#nobody"), "nobody", "live")


def test_a_dry_run_looks_at_both_ends(served: Site, source: Path, store: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = call(served, "reembed", "--dry-run", str(source), str(tmp_path / "sink.jsonl"), "--text", "{name}: {notes}")
    printed = check_success(done)
    assert "name 0" in printed
    assert "tokens, about" in printed
    assert sorted(tmp_path.rglob("*")) == before
    done = call(served, "reembed", str(source), f"qdrant+local:{store}#small", "--field", "name", "--dry-run")
    check_one_line(done, "4 dimensions")
