"""Helpers of the engine's tests: a task that misbehaves as told, a worker's shift, and looks into Redis."""

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import redis

from producer.wire import scripts
from producer.wire.codec import decode_reply
from producer.wire.keys import GROUP, Kind, Lane, QueueKeys
from producer.wire.messages import EmbeddingReply, JobHeader, Reply, Row, ScoreReply
from producer.wire.models import TaskName
from tests.unit.fakes import CHANNEL, EMBED_QUEUE, WIDE, result_of, run_script
from workers.entries import Entry
from workers.ledger import Ledger
from workers.progress import Progress
from workers.reader import LOOK_AHEAD_ROWS
from workers.runner import Runner
from workers.streams import Streams
from workers.tasks import Measure


class Died(BaseException):
    """Stands for the death of a worker process: nothing in the engine may catch it."""


class SmallTask:
    """Embeds as the fakes do; a text that begins with "cut" counts as truncated."""

    name: TaskName = "embed"

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.row_tokens = 1
        self.broken: set[str] = set()
        self.deadly: set[str] = set()
        self.deadly_to_measure: set[str] = set()
        self.tried: list[list[str]] = []
        self.unmeasurable: set[str] = set()
        self.error: Exception = RuntimeError("the secret text")
        self.on_run: Callable[[], object] = lambda: None

    def accepts(self, kind: Kind) -> bool:
        return kind is not Kind.PAIR

    def measure(self, rows: Sequence[Row]) -> list[Measure]:
        if self.deadly_to_measure.intersection(row.text for row in rows):
            raise Died
        if self.unmeasurable.intersection(row.text for row in rows):
            raise ValueError("the tokenizer does not like it")
        return [Measure(tokens=self.row_tokens, truncated=row.text.startswith("cut")) for row in rows]

    def run(self, rows: Sequence[Row]) -> Sequence[EmbeddingReply | ScoreReply]:
        texts = [row.text for row in rows]
        self.tried.append(texts)
        if self.deadly.intersection(texts):
            raise Died
        if self.broken.intersection(texts):
            raise self.error
        self.batches.append(texts)
        self.on_run()
        return [reply for reply in map(result_of, rows) if not_failed(reply)]


def not_failed(reply: Reply) -> TypeGuard[EmbeddingReply | ScoreReply]:
    return isinstance(reply, EmbeddingReply | ScoreReply)


class OneShift(Streams):
    """Streams on which an idle worker goes home instead of waiting, and that can fail."""

    def __init__(self, client: redis.Redis, queue: QueueKeys, consumer: str, stopping: threading.Event) -> None:
        super().__init__(client, queue, consumer)
        self._stopping = stopping

    def wait_new(self, block_ms: int, count: int) -> list[Entry]:
        entries = self.read_new(dict.fromkeys(Lane, LOOK_AHEAD_ROWS))  # all that there is, as after a backlog
        if not entries:
            self._stopping.set()
        return entries

    def fail_once(self, method: str, error: Exception) -> None:
        """Let the next call of a method raise instead."""
        self.fail(method, error, times=1)

    def fail(self, method: str, error: Exception, *, times: int) -> None:
        """Let the next calls of a method raise instead."""

        def fail(*_: Any) -> None:
            nonlocal times
            times -= 1
            if not times:
                delattr(self, method)
            raise error

        setattr(self, method, fail)


class Shift:
    """One worker that runs until nothing is left to do."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        name: str = "worker",
        batch_tokens: int = 1024,
        row_by_row: bool = False,
        max_text_bytes: int = 65536,
        most_rows: float = float("inf"),
        tokens_per_s: float = 0.0,
    ) -> None:
        self.task = SmallTask()
        self.stopping = threading.Event()
        self.streams = OneShift(client, EMBED_QUEUE, name, self.stopping)
        self.ledger = Ledger()
        self._progress = Progress()
        self._runner = Runner(
            task=self.task,
            streams=self.streams,
            ledger=self.ledger,
            progress=self._progress,
            stopping=self.stopping,
            batch_tokens=batch_tokens,
            tokens_per_s=tokens_per_s,
            row_by_row=row_by_row,
            reply_ttl_s=86_400,
            lease_s=8.0,
            max_text_bytes=max_text_bytes,
            most_rows=most_rows,
        )

    def work(self) -> None:
        self._runner.run()

    @property
    def counts(self) -> dict[str, int]:
        return self._progress.unsent()


def send(client: redis.Redis, *rows: Row, lane: Lane = Lane.INTERACTIVE) -> None:
    """Enqueue rows as a client does, one job for each."""
    header = JobHeader(kind=rows[0].kind, budget_ms=60_000)
    run_script(client, scripts.enqueue(EMBED_QUEUE, lane, header, rows, channel=CHANNEL, limit=WIDE))


def subscribe(client: redis.Redis, *channels: str) -> Any:
    """A subscription that hears what is published from now on."""
    pubsub: Any = client.pubsub()
    pubsub.subscribe(*channels)
    while pubsub.get_message(timeout=0):
        pass
    return pubsub


def add_job(
    client: redis.Redis, fields: dict[bytes, bytes], *, lane: Lane = Lane.INTERACTIVE, entry_id: str = "*"
) -> bytes:
    """Put an entry on a lane as it is, past all checks."""
    raw: dict[Any, Any] = {**fields}
    added: Any = client.xadd(EMBED_QUEUE.lane(lane), raw, id=entry_id)
    return bytes(added)


def reply_of(client: redis.Redis, row: Row) -> Reply | None:
    data: Any = client.get(EMBED_QUEUE.reply(row.digest))
    return None if data is None else decode_reply(data)


def dead_letters(client: redis.Redis) -> list[dict[bytes, bytes]]:
    found: Any = client.xrange(EMBED_QUEUE.dead)
    return [fields for _, fields in found]


def reply_ttl_s(client: redis.Redis, row: Row) -> int:
    ttl: Any = client.ttl(EMBED_QUEUE.reply(row.digest))
    return int(ttl)


def jobs_left(client: redis.Redis, lane: Lane = Lane.INTERACTIVE) -> int:
    length: Any = client.xlen(EMBED_QUEUE.lane(lane))
    return int(length)


def lane_is_empty(client: redis.Redis, lane: Lane) -> bool:
    """Whether no entry is left on the lane, and none is pending."""
    pending: Any = client.xpending(EMBED_QUEUE.lane(lane), GROUP)
    return jobs_left(client, lane) == 0 and pending["pending"] == 0
