"""Dead letters of real workers on every kind of server: from the failed row to the retried result, and the commands."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from producer import DeadLetters, RetryReport, RowFailed
from producer.wire.keys import Lane
from producer.wire.letters import encode_letter
from producer.wire.messages import Row
from producer.wire.models import TaskName
from tests.integration.harness.commands import call, check_one_line, check_success
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import FakeModel, Input, score_of, vector_of
from tests.integration.harness.processes import ROOT
from tests.integration.harness.site import Site, passage
from tests.integration.harness.waiting import wait_until
from tests.unit.letters import job_fields

BAD = [f"bad text {number}" for number in range(5)]


class Broken:
    """A model's fault, until somebody repairs it: raises for texts that begin with "bad"."""

    def __init__(self) -> None:
        self.repaired = False

    def __call__(self, batch: Sequence[Input]) -> None:
        texts = [row if isinstance(row, str) else row[1] for row in batch]
        if not self.repaired and any(text.startswith("bad") for text in texts):
            raise ValueError("broken")


def dead_letters(site: Site, **settings: Any) -> DeadLetters:
    models = {"embed_model": site.model, "rerank_model": site.model}
    return DeadLetters.from_url(site.url, namespace=site.namespace, **models, **settings)


def report(**numbers: Any) -> RetryReport:
    nothing: dict[str, Any] = {"retried": 0, "already_computed": 0, "unreadable": 0, "missing": (), "lane_full": False}
    return RetryReport(**{**nothing, **numbers})


def bury(site: Site, *rows: Row, task: TaskName = "embed") -> str:
    """Leave a letter as a worker does, without one."""
    fields: dict[Any, Any] = {
        **encode_letter(
            code="model_failed",
            reason="the model raised ValueError",
            worker="host/0",
            lane=Lane.INTERACTIVE,
            entry_id=b"1763900000000-7",
            deliveries=1,
            fields=job_fields(*rows),
        )
    }
    added: Any = site.client.xadd(site.queue(task).dead, fields)
    return bytes(added).decode()


def test_rows_that_failed_are_computed_after_the_model_is_repaired(site: Site) -> None:
    fault = Broken()
    with Engine(site, FakeModel(fault)), site.producer() as producer, dead_letters(site) as dead:
        with pytest.raises(RowFailed):
            producer.embed_many([*BAD, "good"])
        site.await_empty()
        letters = dead.list("embed")
        assert {letter.job.rows for letter in letters if letter.job} == {(passage(text),) for text in BAD}
        assert {(letter.code, letter.worker, letter.lane) for letter in letters} == {
            ("model_failed", "engine/0", Lane.INTERACTIVE)
        }
        assert all((letter.enqueued_at_ms or 0) <= (letter.died_at_ms or 0) <= dead.now_ms() for letter in letters)

        fault.repaired = True
        assert dead.retry_all("embed") == report(retried=5)
        site.await_empty()
        assert dead.list("embed") == []
        result = producer.embed_result(BAD)
        assert all(result.cached)
        assert np.array_equal(result.embeddings[3], vector_of(BAD[3]))


def test_rows_that_fail_again_are_new_letters(site: Site) -> None:
    with Engine(site, FakeModel(Broken())), site.producer() as producer, dead_letters(site) as dead:
        with pytest.raises(RowFailed):
            producer.embed_many(BAD)
        site.await_empty()
        before = {letter.id for letter in dead.list("embed")}

        assert dead.retry("embed", before) == report(retried=5)
        site.await_empty()

        again = dead.list("embed")
        assert len(again) == 5
        assert before.isdisjoint(letter.id for letter in again)
        assert {letter.lane for letter in again} == {Lane.BULK}


def test_pairs_that_failed_are_computed_after_the_model_is_repaired(site: Site) -> None:
    fault = Broken()
    documents = [*BAD, "good"]
    with Engine(site, FakeModel(fault), task="rerank"), site.producer() as producer, dead_letters(site) as dead:
        with pytest.raises(RowFailed):
            producer.rerank("a question", documents)
        site.await_empty("rerank")
        assert (dead.count("rerank"), dead.count("embed")) == (5, 0)

        fault.repaired = True
        assert dead.retry_all("rerank") == report(retried=5)
        site.await_empty("rerank")
        ranking = producer.rerank("a question", documents)
        assert ranking.cached_pairs == 6
        assert ranking.results[0].score == max(score_of("a question", document) for document in documents)


def test_a_row_that_somebody_else_computed_is_not_run_again(site: Site) -> None:
    bury(site, passage("wanted"))
    with Engine(site) as engine, site.producer() as producer, dead_letters(site) as dead:
        producer.embed("wanted", "passage")
        assert dead.retry_all("embed") == report(already_computed=1)
        site.await_empty()
    assert engine.model.computed == ["wanted"]


def test_a_full_lane_keeps_what_it_does_not_take(site: Site) -> None:
    ids = [bury(site, passage(text)) for text in BAD]
    with dead_letters(site, lane_limit=3) as dead:
        assert dead.retry_all("embed") == report(retried=3, lane_full=True)
        assert [letter.id for letter in dead.list("embed", newest_first=False)] == ids[3:]
        assert site.waiting(Lane.BULK) == 3
        with Engine(site):
            wait_until(lambda: not site.waiting(Lane.BULK), what="room on the lane")
            assert dead.retry_all("embed") == report(retried=2)
            site.await_empty()
        assert dead.count("embed") == 0


def test_thousands_of_letters_are_paged_retried_and_purged(site: Site) -> None:
    ids = [bury(site, passage(f"t{number}")) for number in range(1500)]
    with dead_letters(site) as dead:
        assert [letter.id for letter in dead.iterate("embed")] == ids[::-1]
        assert [letter.id for letter in dead.list("embed", limit=150, newest_first=False)] == ids[:150]
        assert dead.purge("embed", [*ids[:300], "7-0"]) == 300
        assert dead.retry("embed", ids[300:600]) == report(retried=300)
        assert dead.retry_all("embed") == report(retried=900)
        assert (dead.count("embed"), site.waiting(Lane.BULK)) == (0, 1200)
        bury(site, passage("later"))
        assert dead.purge_all("embed") == 1
        assert dead.list("embed") == []


def test_garbage_is_listed_kept_by_a_retry_and_purged(site: Site) -> None:
    garbage: list[dict[Any, Any]] = [
        {b"\xff": b"\x00"},
        {b"dead:code": b"\xff", b"dead:entry": b"x", b"job": b"\xc1", b"0": b""},
        {b"job": b"", b"1": b"text"},
    ]
    for fields in garbage:
        site.client.xadd(site.queue().dead, fields)
    with dead_letters(site) as dead:
        assert all(letter.unreadable for letter in dead.list("embed"))
        assert dead.retry_all("embed") == report(unreadable=3)
        assert len(check_success(call(site, "dead", "list", "embed")).splitlines()) == 4
        for letter in dead.iterate("embed"):
            shown = json.loads(check_success(call(site, "dead", "show", "embed", letter.id, "--json")))
            assert shown["unreadable"] == letter.unreadable
        assert dead.purge_all("embed") == 3


def test_the_commands_tell_of_a_failed_row_and_retry_it(site: Site) -> None:
    fault = Broken()
    with Engine(site, FakeModel(fault)), site.producer() as producer:
        with pytest.raises(RowFailed):
            producer.embed("bad secret", "passage")
        site.await_empty()
        listed = check_success(call(site, "dead", "list", "embed"))
        assert "model_failed" in listed
        assert "secret" not in listed
        (told,) = [
            json.loads(line) for line in check_success(call(site, "dead", "list", "embed", "--json")).splitlines()
        ]
        assert told["rows"] == [{"digest": passage("bad secret").digest.hex(), "text_bytes": 10}]
        assert "  bad secret" in check_success(call(site, "dead", "show", "embed", told["id"])).splitlines()

        fault.repaired = True
        done = call(site, "dead", "retry", "embed", told["id"])
        assert check_success(done) == "1 dead letter put on the bulk lane again\n"
        wait_until(lambda: all(producer.cached(["bad secret"])), what="the retried result")
        check_one_line(call(site, "dead", "retry", "embed", told["id"]), "no dead letter of the id")
        assert "no dead letters" in check_success(call(site, "dead", "list", "embed"))


@pytest.mark.parametrize(("answer", "left", "code"), [("n", 1, 1), ("y", 0, 0), ("\x04", 1, 130)])
def test_purging_all_on_a_terminal_asks(solo: Site, answer: str, left: int, code: int) -> None:
    bury(solo, passage("a"))
    terminal, theirs = pty.openpty()
    with os.fdopen(terminal, "wb", buffering=0) as keyboard:
        command = subprocess.Popen(
            [sys.executable, "cli.py", "dead", "purge", "embed", "--all"],
            cwd=ROOT,
            env=solo.environ(),
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(theirs)
        keyboard.write(answer.encode() + (b"" if answer == "\x04" else b"\n"))
        stdout, stderr = command.communicate(timeout=60)
    assert command.returncode == code, stderr
    assert "Delete all 1 dead letter of embed:fake-" in stderr
    assert stdout == ("" if left else "1 dead letter deleted\n")
    assert solo.client.xlen(solo.queue().dead) == left


def test_dead_letters_are_bounded_in_memory(solo: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older half goes when they take too much: nothing else ever would, since they are never evicted."""
    monkeypatch.setattr("workers.streams.DEAD_LETTERS_BYTES", 1 << 20)
    texts = [f"{number} {'x' * 50_000}" for number in range(60)]

    def fail(_batch: object) -> None:
        raise ValueError("no")

    with Engine(solo, FakeModel(fail)), solo.producer() as producer, dead_letters(solo) as dead:
        for first in range(0, len(texts), 20):
            with pytest.raises(RowFailed):
                producer.embed_many(texts[first : first + 20])
        solo.await_empty()
        kept = [letter.job.rows[0].text for letter in dead.iterate("embed", newest_first=False) if letter.job]
    assert (solo.client.memory_usage(solo.queue().dead) or 0) < 1.2 * (1 << 20)
    assert 5 <= len(kept) < 25
    assert len(set(kept)) == len(kept)
