"""What was put on a lane past all producers, and what became of each entry: answered, dead, or expired."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from producer.errors import MalformedMessage
from producer.wire.codec import decode_job, decode_reply, decode_vector
from producer.wire.keys import Kind, Lane
from producer.wire.messages import EmbeddingReply, FailureReply, Job, Row, ScoreReply
from producer.wire.models import TaskName
from tests.fuzzing import Fields
from tests.integration.harness.fake_model import score_of, vector_of
from tests.integration.harness.site import Site

Entry = tuple[Lane, Fields, str]
"""Lane, fields, and the id it shall have or "*"."""

Fate = Literal["answered", "dead", "expired"]

_SHORT_BUDGET_MS = 60_000


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One entry: its id on its lane, and what of it a worker can read."""

    lane: Lane
    id: bytes
    fields: Fields
    is_old: bool

    @property
    def size_bytes(self) -> int:
        return sum(len(name) + len(value) for name, value in self.fields)

    def job(self) -> Job | None:
        """The job, if it is one; of a name that is repeated the last counts, as in redis-py's map."""
        with suppress(MalformedMessage):
            return decode_job(dict(self.fields))
        return None


class Lanes:
    """Puts entries on one task's lanes and finds out their fates once the lanes are empty."""

    def __init__(self, site: Site, task: TaskName) -> None:
        self._site = site
        self._task: TaskName = task
        self._letters_read = b"-"

    def put(self, entries: Sequence[Entry]) -> list[Sent]:
        """Add the entries as they are."""
        with self._site.client.pipeline(transaction=False) as pipeline:
            for lane, fields, id_ in entries:
                flat = [part for field in fields for part in field]
                pipeline.execute_command("XADD", self._site.queue(self._task).lane(lane), id_, *flat)
            ids: list[Any] = pipeline.execute()
        return [
            Sent(lane=lane, id=id_, fields=fields, is_old=asked != "*")
            for (lane, fields, asked), id_ in zip(entries, ids, strict=True)
        ]

    def fates(self, sent: Sequence[Sent]) -> Iterator[Fate]:
        """What became of each; fails the test if an answer is wrong, or if there is none without a reason."""
        dead = self._new_letters()
        for entry in sent:
            if (entry.lane, entry.id) in dead:
                self._check_answers(entry, missing_allowed=True)
                yield "dead"
            elif self._check_answers(entry, missing_allowed=False):
                yield "answered"
            else:
                yield "expired"

    def _new_letters(self) -> set[tuple[Lane, bytes]]:
        """The entries that have become dead letters since the last look."""
        found: Any = self._site.client.xrange(self._site.queue(self._task).dead, min=self._letters_read)
        if found:
            self._letters_read = b"(" + found[-1][0]
        return {(Lane(letter[b"dead:lane"].decode()), letter[b"dead:entry"]) for _, letter in found}

    def _check_answers(self, entry: Sent, *, missing_allowed: bool) -> bool:
        """Whether all rows are answered; those that are must be right, and only an expired job may lack some."""
        job = entry.job()
        assert job is not None or missing_allowed, f"neither a job nor a dead letter: {entry.id!r} {entry.fields!r}"
        answered = [self._is_right(row) for row in job.rows] if job else []
        if not all(answered) and not missing_allowed:
            assert job is not None
            may_expire = entry.is_old or job.header.budget_ms < _SHORT_BUDGET_MS
            assert may_expire, f"a job without an answer: {entry.id!r} {entry.fields!r}"
        return bool(answered) and all(answered)

    def _is_right(self, row: Row) -> bool:
        key = self._site.queue(self._task).reply(row.digest)
        data: Any = self._site.client.get(key)
        reply = decode_reply(data) if data is not None else None
        if isinstance(reply, EmbeddingReply):
            assert decode_vector(reply).tolist() == vector_of(row.text).tolist()
        if isinstance(reply, ScoreReply):
            assert row.kind is Kind.PAIR
            assert reply.score == score_of(row.query or "", row.text)
        return reply is not None and not isinstance(reply, FailureReply)
