"""The commands on dead letters, on an in-memory Redis: what they print, never print, refuse, and exit with."""

import json
from collections.abc import Callable
from typing import Any

import fakeredis
import pytest
import redis
from click.testing import CliRunner, Result

from cli import main
from producer.wire.keys import Lane
from tests.unit.fakes import RERANK_QUEUE, pair, passage
from tests.unit.letters import buried, bury, bury_raw, letter_of
from tests.unit.scripting import texts

Headrace = Callable[..., Result]
SECRET = "a secret text"
JSON_KEYS = {
    "id",
    "code",
    "reason",
    "worker",
    "lane",
    "entry_id",
    "enqueued_at_ms",
    "died_at_ms",
    "deliveries",
    "payload_bytes",
    "unreadable",
    "kind",
    "query_bytes",
    "rows",
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
    """Let the commands connect to one in-memory Redis; return a plain client of it."""
    shared = fakeredis.FakeServer()
    monkeypatch.setattr("producer.connection.connect", lambda *_, **__: fakeredis.FakeRedis(server=shared))
    client: redis.Redis = fakeredis.FakeRedis(server=shared)
    return client


@pytest.fixture
def headrace(server: redis.Redis) -> Headrace:
    """Run `headrace dead …` for the offline models."""
    environ = {"REDIS_URL": "redis://in-memory", "HEADRACE_EMBED_MODEL": "offline", "HEADRACE_RERANK_MODEL": "offline"}
    return lambda *arguments: CliRunner().invoke(main, ["dead", *arguments], env=environ)


def check_one_line(done: Result, *reasons: str, code: int = 1) -> None:
    assert done.exit_code == code
    (line,) = done.stderr.splitlines()
    assert all(reason in line for reason in reasons), line


def test_a_list_has_one_line_for_each_letter_and_no_text(server: redis.Redis, headrace: Headrace) -> None:
    older = bury(server, passage(SECRET), deliveries=3, code="worker_died")
    newer = bury_raw(server, {b"junk": b"\xff"})

    done = headrace("list", "embed")

    assert (done.exit_code, done.stderr) == (0, "")
    heading, first, second = done.stdout.splitlines()
    assert heading.split() == ["id", "died", "code", "attempts", "lane", "rows", "bytes", "digest", "worker", "reason"]
    assert first.split()[:1] == [newer]
    facts = second.split()
    assert facts[0] == older
    assert facts[3:9] == ["worker_died", "3", "interactive", "1", "47", f"{passage(SECRET).digest.hex()[:12]}…"]
    assert second.rstrip().endswith("host/0  the model raised ValueError")
    assert SECRET not in done.stdout


def test_a_list_in_json_is_one_object_a_line_without_texts(server: redis.Redis, headrace: Headrace) -> None:
    bury_raw(server, {b"junk": b"\xff"}, queue=RERANK_QUEUE)
    bury(server, pair(SECRET, question=SECRET))

    done = headrace("list", "rerank", "--json")

    told, garbage = [json.loads(line) for line in done.stdout.splitlines()]
    assert told.keys() == garbage.keys() == JSON_KEYS
    assert (told["code"], told["kind"], told["lane"], told["query_bytes"]) == (
        "model_failed",
        "pair",
        "interactive",
        13,
    )
    assert told["rows"] == [{"digest": pair(SECRET, question=SECRET).digest.hex(), "text_bytes": 13}]
    assert told["unreadable"] is None
    assert (garbage["lane"], garbage["rows"], garbage["kind"]) == (None, [], None)
    assert garbage["unreadable"] == "the entry has no job header"
    assert SECRET not in done.stdout


def test_a_list_stops_at_its_limit_and_says_so(server: redis.Redis, headrace: Headrace) -> None:
    ids = [bury(server, passage(f"t{number}")) for number in range(120)]

    lines = headrace("list", "embed").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ids[:19:-1]
    assert lines[-1] == "the newest 100 of 120; --limit shows more"
    assert len(headrace("list", "embed", "--limit", "120").stdout.splitlines()) == 121
    assert len(headrace("list", "embed", "--limit", "7", "--json").stdout.splitlines()) == 7


def test_an_empty_list_says_so(headrace: Headrace) -> None:
    assert headrace("list", "embed").stdout == "no dead letters of embed:offline-03769976\n"
    assert headrace("list", "embed", "--json").stdout == ""


def test_the_queue_is_that_of_the_model(server: redis.Redis, headrace: Headrace) -> None:
    bury(server, passage("a"))

    assert "no dead letters of embed:other-" in headrace("list", "embed", "--model", "other").stdout
    assert "no dead letters" in headrace("list", "embed", "--namespace", "shop").stdout


def test_a_letter_is_shown_with_its_texts(server: redis.Redis, headrace: Headrace) -> None:
    letter_id = bury(server, pair("a document", question="a question"), deliveries=3)

    lines = headrace("show", "rerank", letter_id).stdout.splitlines()

    facts = {line[:9].strip(): line[10:] for line in lines[:9]}
    assert (facts["letter"], facts["code"], facts["worker"]) == (letter_id, "model_failed", "host/0")
    assert facts["entry"] == "1763900000000-7 on lane interactive, tried 3 times"
    assert facts["retry"] == "possible"
    assert lines[9:] == [
        "query     10 bytes",
        "  a question",
        f"row 0     pair, 10 bytes, digest {pair('a document', question='a question').digest.hex()}",
        "  a document",
    ]


def test_a_letter_in_json_holds_the_texts_as_they_are(server: redis.Redis, headrace: Headrace) -> None:
    text = 'ein "Bächlein"\x1b[2J\u2028'
    letter_id = bury(server, pair(text, question="q"))

    (line,) = headrace("show", "rerank", letter_id, "--json").stdout.splitlines()

    told = json.loads(line)
    assert told.keys() == JSON_KEYS | {"query"}
    assert told["query"] == "q"
    digest = pair(text, question="q").digest.hex()
    assert told["rows"] == [{"digest": digest, "text_bytes": len(text.encode()), "text": text}]


def test_nothing_in_a_letter_can_steer_the_terminal(server: redis.Redis, headrace: Headrace) -> None:
    evil = "\x1b[2J\x9b31m\r\u202e[red]x[/red]"
    letter_id = bury(server, passage(evil))
    fields = {b"dead:" + name: evil.encode() for name in (b"code", b"reason", b"worker", b"lane", b"entry")}
    other = bury_raw(server, fields)

    for done in (headrace("list", "embed"), headrace("show", "embed", letter_id), headrace("show", "embed", other)):
        assert done.exit_code == 0
        assert not set("\x1b\x9b\r\u202e") & set(done.stdout)
        assert "\\x1b[2J" in done.stdout
        assert "[red]x[/red]" in done.stdout


def test_a_letter_that_cannot_be_retried_is_shown_with_the_reason(server: redis.Redis, headrace: Headrace) -> None:
    huge = bury_raw(server, letter_of(*(passage("x" * 60_000 + str(n)) for n in range(3))))

    shown = headrace("show", "embed", huge).stdout

    assert "retry     not possible: its job was left out, it was 180" in shown


def test_a_letter_that_is_not_there_is_one_line(headrace: Headrace) -> None:
    check_one_line(headrace("show", "embed", "7-0"), "headrace: embed:offline-03769976 has no dead letter 7-0")
    check_one_line(headrace("show", "embed", "seven"), "'seven' is not the id of a dead letter")


def test_letters_are_retried_by_their_ids(server: redis.Redis, headrace: Headrace) -> None:
    ids = [bury(server, passage(text)) for text in "abc"]

    done = headrace("retry", "embed", *ids[:2])

    assert (done.exit_code, done.stdout, done.stderr) == (0, "2 dead letters put on the bulk lane again\n", "")
    assert (buried(server), sorted(texts(server, Lane.BULK))) == (ids[2:], ["a", "b"])


def test_all_letters_are_retried_and_those_without_a_job_stay(server: redis.Redis, headrace: Headrace) -> None:
    bury(server, passage("a"))
    garbage = bury_raw(server, {b"junk": b"\xff"})

    done = headrace("retry", "embed", "--all")

    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "1 dead letter put on the bulk lane again, 1 kept that cannot be retried\n"
    check_one_line(headrace("retry", "embed", garbage), "1 cannot be retried, see why: headrace dead show embed ID")
    assert buried(server) == [garbage]


def test_ids_that_do_not_exist_are_told_after_the_rest_is_done(server: redis.Redis, headrace: Headrace) -> None:
    ids = [bury(server, passage(text)) for text in "ab"]

    retried = headrace("retry", "embed", "7-0", ids[0])
    purged = headrace("purge", "embed", "7-0", "8-0", ids[1])
    many = headrace("retry", "embed", *(f"{number}-0" for number in range(7)))

    assert (retried.stdout, purged.stdout) == ("1 dead letter put on the bulk lane again\n", "1 dead letter deleted\n")
    check_one_line(retried, "no dead letter of the id 7-0")
    check_one_line(purged, "2 of 3 ids name no dead letter")
    check_one_line(many, "no dead letters of 7 ids: 0-0, 1-0, 2-0, 3-0, 4-0, …")
    assert buried(server) == []


def test_a_full_lane_is_told(server: redis.Redis, headrace: Headrace) -> None:
    for text in "abc":
        bury(server, passage(text))

    done = headrace("retry", "embed", "--all", "--lane-limit", "2")

    assert done.stdout == "2 dead letters put on the bulk lane again\n"
    check_one_line(done, "the bulk lane is full, 1 dead letter left: retry again later")
    assert headrace("retry", "embed", "--all", "--lane-limit", "3").exit_code == 0


@pytest.mark.parametrize("command", ["retry", "purge"])
def test_ids_or_all_must_be_given_and_not_both(server: redis.Redis, headrace: Headrace, command: str) -> None:
    letter_id = bury(server, passage("a"))

    check_one_line(headrace(command, "embed"), "give the ids of dead letters, or --all (see: ", code=2)
    check_one_line(headrace(command, "embed", letter_id, "--all"), "or --all, not both", code=2)
    assert buried(server) == [letter_id]


def test_purging_all_without_a_terminal_needs_yes(server: redis.Redis, headrace: Headrace) -> None:
    ids = [bury(server, passage(text)) for text in "ab"]

    check_one_line(headrace("purge", "embed", "--all"), "nothing was deleted", "--all needs --yes")
    assert buried(server) == ids

    assert headrace("purge", "embed", "--all", "--yes").stdout == "2 dead letters deleted\n"
    assert buried(server) == []


@pytest.mark.parametrize("arguments", [("list", "embed"), ("show", "embed", "7-0"), ("purge", "embed", "7-0")])
def test_redis_that_is_away_is_one_line(
    headrace: Headrace, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise redis.ConnectionError("refused")

    monkeypatch.setattr(fakeredis.FakeRedis, "execute_command", fail)
    monkeypatch.setattr("fakeredis.FakeRedis.pipeline", fail)

    check_one_line(headrace(*arguments), "Redis cannot be reached")


def test_commands_take_the_settings_that_they_need(headrace: Headrace) -> None:
    flags = {command: headrace(command, "--help").stdout for command in ("list", "show", "retry", "purge")}

    assert all("--redis-url" in text and "--namespace" in text and "--model" in text for text in flags.values())
    assert [command for command, text in flags.items() if "--lane-limit" in text] == ["retry"]
    assert not [command for command, text in flags.items() if "--timeout-s" in text or "--embed-model" in text]
