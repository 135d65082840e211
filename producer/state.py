"""The state of a queue as an operator sees it: which commands read it, and what their replies mean. No I/O."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from producer.errors import MalformedMessage
from producer.wire.codec import Message, decode_message
from producer.wire.keys import GROUP, Lane, QueueKeys
from producer.wire.messages import Heartbeat, ModelCard

_NUMBER = re.compile(rb"-?[0-9]{1,30}")

ALIVE_MS = 10_000
"""A worker whose last beat is older than this does not count as alive (it beats every 2 seconds)."""

STALLED_MS = 120_000
"""A worker whose engine has not come round for this long, or for its own limit of a batch, has stalled."""


@dataclass(frozen=True, kw_only=True)
class LaneState:
    """One lane: jobs nobody has read, jobs that workers hold, the rows and bytes of both, the age of the oldest, and
    rows that died."""

    waiting: int
    in_flight: int
    rows: int
    size_bytes: int
    oldest_age_ms: int
    dead: int


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """One worker process by its last heartbeat."""

    name: str
    heartbeat: Heartbeat
    alive: bool
    progress_age_ms: int

    @property
    def healthy(self) -> bool:
        """Alive, with its model loaded, and its engine coming round as often as its limit for a batch says."""
        longest_ms = max(STALLED_MS, self.heartbeat.batch_limit_ms)
        return self.alive and self.heartbeat.model_loaded and self.progress_age_ms < longest_ms


@dataclass(frozen=True, kw_only=True)
class QueueState:
    """One queue: its lanes, dead letters, workers, counters, and the model card if a pool has run lately."""

    task: str
    tag: str
    lanes: dict[Lane, LaneState]
    dead: int
    workers: tuple[WorkerState, ...]
    counters: dict[str, int]
    card: ModelCard | None

    @property
    def used(self) -> bool:
        """Whether anything has to do with this queue: a pool, now or lately, or jobs."""
        jobs = any(lane.waiting or lane.in_flight for lane in self.lanes.values())
        return bool(jobs or self.card or self.workers or self.dead)

    def describe(self, lane: Lane) -> str:
        """Say in one line how the lane stands, for the text of an error."""
        state = self.lanes[lane]
        healthy = sum(worker.healthy for worker in self.workers)
        return (
            f"lane {lane} of {self.task}:{self.tag} has {state.waiting} jobs waiting and {state.in_flight} in flight, "
            f"{healthy} workers healthy"
        )

    def estimated_wait_s(self, lane: Lane) -> float | None:
        """How long the pool needs for what is before a new row of the lane; None if nobody can tell.

        Interactive rows go first. The rate is what the healthy workers do while they are busy, on average since ever;
        until that is counted, what they have done lately.
        """
        workers = [worker for worker in self.workers if worker.healthy]
        rate = sum(worker.heartbeat.rows_per_s for worker in workers)
        if self.counters.get("busy_ms", 0) > 0 and self.counters.get("rows", 0) > 0:
            rate = len(workers) * self.counters["rows"] * 1000 / self.counters["busy_ms"]
        ahead = self.lanes[Lane.INTERACTIVE].rows + (self.lanes[Lane.BULK].rows if lane is Lane.BULK else 0)
        return ahead / rate if rate else None


def ask(pipeline: Any, queue: QueueKeys) -> None:
    """Put the commands that read a queue's state on a pipeline, sync or async; any of them may fail by itself."""
    pipeline.time()
    for lane in Lane:
        pipeline.xlen(queue.lane(lane))
        pipeline.xpending(queue.lane(lane), GROUP)
        pipeline.xrange(queue.lane(lane), count=1)
    pipeline.hgetall(queue.load)
    pipeline.xlen(queue.dead)
    pipeline.hgetall(queue.workers)
    pipeline.hgetall(queue.stats)
    pipeline.get(queue.card)


def parse(queue: QueueKeys, replies: Sequence[Any]) -> QueueState:
    """Read the replies to `ask`; one that is an error (no such group yet) counts as empty.

    Raises the error of the first, the server's time, without which nothing can be told.
    """
    if isinstance(replies[0], Exception):
        raise replies[0]
    answers: list[Any] = [None if isinstance(reply, Exception) else reply for reply in replies]
    (seconds, microseconds), lanes, (load, dead, workers, stats, card) = answers[0], answers[1:-5], answers[-5:]
    now_ms = seconds * 1000 + microseconds // 1000
    counters = _numbers(stats)
    held = _numbers(load)
    beats = (
        (name.decode(errors="replace"), _decode(Heartbeat, data)) for name, data in sorted((workers or {}).items())
    )
    return QueueState(
        task=queue.task,
        tag=queue.tag,
        lanes={
            lane: _lane(
                *lanes[3 * n : 3 * n + 3],
                now_ms=now_ms,
                rows=held.get(f"{lane}:rows", 0),
                size_bytes=held.get(f"{lane}:bytes", 0),
                dead=counters.get(f"dead_{lane}", 0),
            )
            for n, lane in enumerate(Lane)
        },
        dead=dead or 0,
        workers=tuple(_worker(name, beat, now_ms) for name, beat in beats if beat is not None),
        counters=counters,
        card=_decode(ModelCard, card),
    )


def _numbers(fields: dict[bytes, bytes] | None) -> dict[str, int]:
    """Read counters; what is no number counts for nothing."""
    numbers = (fields or {}).items()
    return {name.decode(errors="replace"): int(value) for name, value in numbers if _NUMBER.fullmatch(value)}


def _lane(
    length: int | None, pending: Any, oldest: Any, *, now_ms: int, rows: int, size_bytes: int, dead: int
) -> LaneState:
    in_flight = pending["pending"] if pending else 0
    return LaneState(
        waiting=max(0, (length or 0) - in_flight),
        in_flight=in_flight,
        rows=max(0, rows) if length else 0,
        size_bytes=max(0, size_bytes) if length else 0,
        oldest_age_ms=max(0, now_ms - int(oldest[0][0].split(b"-")[0])) if oldest else 0,
        dead=dead,
    )


def _worker(name: str, beat: Heartbeat, now_ms: int) -> WorkerState:
    return WorkerState(
        name=name,
        heartbeat=beat,
        alive=now_ms - beat.beat_at_ms < ALIVE_MS,
        progress_age_ms=max(0, now_ms - beat.progressed_at_ms),
    )


def _decode(cls: type[Message], data: bytes | None) -> Message | None:
    try:
        return None if data is None else decode_message(cls, data)
    except MalformedMessage:
        return None
