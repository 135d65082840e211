"""How commands fail: one line on standard error, a non-zero exit code, and no traceback unless --debug."""

import json
from pathlib import Path

import pytest

from console.redis_server import RedisServer
from tests.integration.conftest import OfflinePools
from tests.integration.harness.commands import call, check_one_line, check_success, run
from tests.integration.harness.site import Site

NOBODY = "redis://127.0.0.1:1/0"
"""Port 1 (tcpmux) is closed on every machine of ours."""


@pytest.fixture
def served(offline: OfflinePools) -> Site:
    """A namespace that both offline pools serve."""
    return offline.site


def test_health_without_any_worker(solo: Site) -> None:
    check_one_line(call(solo, "health", "embed"), "0 of 0 workers healthy")


def test_health_with_a_stalled_worker(solo: Site) -> None:
    solo.beat("host/0")
    assert "1 of 1 workers healthy" in check_success(call(solo, "health", "embed"))
    check_one_line(call(solo, "health", "embed", "--here"), "0 of 0 workers healthy")
    solo.beat("host/0", stuck_ms=600_000)
    check_one_line(call(solo, "health", "embed"), "0 of 1 workers healthy", "stalled")
    solo.beat("host/0", silent_ms=60_000)
    check_one_line(call(solo, "health", "embed"), "silent")


def test_an_unknown_model(served: Site) -> None:
    done = run(served, "enqueue", "embed", "--model", "no-such-model", "text")
    check_one_line(done, "no embed pool", "'no-such-model'", "offline")


def test_no_pool_at_all(solo: Site) -> None:
    check_one_line(
        call(solo, "enqueue", "rerank", "query", "document"), "no rerank pool", "headrace worker rerank --model fake"
    )


@pytest.mark.parametrize(
    "arguments",
    [("enqueue", "embed", "text"), ("enqueue", "rerank", "q", "d"), ("status",), ("health", "embed")],
    ids=" ".join,
)
def test_an_unreachable_redis(solo: Site, arguments: tuple[str, ...]) -> None:
    check_one_line(call(solo, *arguments, REDIS_URL=NOBODY), "Redis cannot be reached")


def test_an_unreachable_redis_for_reembed(solo: Site, tmp_path: Path) -> None:
    source = tmp_path / "source.jsonl"
    source.write_text('{"id": 1, "text": "a text"}\n')
    check_one_line(call(solo, "reembed", str(source), "-", REDIS_URL=NOBODY), "Redis cannot be reached")


def test_a_wrong_password(own_server: RedisServer, own_site: Site) -> None:
    own_site.client.config_set("requirepass", "secret")
    wrong = own_site.url.replace("redis://", "redis://:pa55word@")
    done = run(own_site, "status", REDIS_URL=wrong)
    check_one_line(done, "password")
    assert "pa55word" not in done.stderr


@pytest.mark.parametrize("url", ["http://localhost", "redis://localhost:port", ""])
def test_a_url_that_is_none(solo: Site, url: str) -> None:
    check_one_line(call(solo, "status", "--redis-url", url), "REDIS_URL", "is not a Redis URL")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("enqueue", "embed", ""), "text 0 is empty"),
        (("enqueue", "embed", "good", " \n "), "text 1 is empty"),
        (("enqueue", "embed", "--kind", "pasage", "text"), "'query' or 'passage'"),
        (("enqueue", "embed", "-"), "no text"),
        (("enqueue", "rerank", "", "document"), "query is empty"),
        (("enqueue", "rerank", "query", "good", ""), "document 1 is empty"),
        (("enqueue", "rerank", "query", "document", "--top-n", "0"), "top_n must be"),
        (("reembed", "/no/such/file", "-"), "/no/such/file cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_a_request(served: Site, arguments: tuple[str, ...], reason: str) -> None:
    check_one_line(call(served, *arguments), reason)


def test_more_than_a_thousand_documents(served: Site) -> None:
    documents = "".join(f"document {number}\n" for number in range(1001))
    done = run(served, "enqueue", "rerank", "query", "-", stdin=documents)
    check_one_line(done, "1001 documents")


@pytest.mark.parametrize("command", [("embed",), ("rerank", "query"), ("rerank", b"\xff\xfe", "document")])
def test_bytes_that_are_no_text(served: Site, command: tuple[str | bytes, ...]) -> None:
    check_one_line(run(served, "enqueue", *command, b"caf\xe9", LC_ALL="C.UTF-8"), "surrogate")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not JSON", "line 2 is not JSON"),
        ("[1, 2]", "line 2 is not a JSON object"),
        ('{"id": 1}', "line 2 has no field 'text'"),
        ('{"text": "no id"}', "line 2 has no field 'id'"),
        ('{"id": 1, "text": ""}', "line 2"),
        ('{"id": 1, "text": 5}', "line 2"),
        (json.dumps({"id": 1, "text": "\ud800"}), "line 2"),
    ],
)
def test_a_source_that_is_none(served: Site, tmp_path: Path, line: str, reason: str) -> None:
    source = tmp_path / "source.jsonl"
    source.write_text(f'{{"id": 0, "text": "a good record"}}\n{line}\n')
    check_one_line(call(served, "reembed", str(source), str(tmp_path / "sink.jsonl")), reason)
    assert list(tmp_path.iterdir()) == [source]


def test_a_sink_that_cannot_be_written(served: Site, tmp_path: Path) -> None:
    source = tmp_path / "source.jsonl"
    source.write_text('{"id": 1, "text": "a text"}\n')
    check_one_line(call(served, "reembed", str(source), "/no/such/folder/sink.jsonl"), "cannot be written")


def test_debug_shows_the_traceback(solo: Site) -> None:
    done = run(solo, "status", options=["--debug"], REDIS_URL=NOBODY)
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "RedisUnavailable" in done.stderr


@pytest.mark.parametrize("name", ["HEADRACE_TIMEOUT_S", "HEADRACE_MAX_TEXT_BYTES"])
def test_a_setting_that_is_no_number(solo: Site, name: str) -> None:
    check_one_line(call(solo, "status", **{name: "many"}), f"{name} must be a")
