"""Helpers of the unit tests: a manual clock, a server of dicts that performs a flow's effects, small queue states."""

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from itertools import islice
from typing import Any

import fakeredis
import msgpack
import numpy as np
import redis

from producer.core import Core
from producer.effects import (
    Count,
    Effect,
    Emit,
    Enqueue,
    Flow,
    Inspect,
    ListPools,
    Lookup,
    Peek,
    Pull,
    Result,
    Steps,
    Unwatch,
    Wait,
)
from producer.errors import HeadraceError, RedisUnavailable
from producer.results import Vector
from producer.settings import ProducerSettings
from producer.state import LaneState, QueueState, WorkerState
from producer.wire.codec import PEEK_BYTES, encode_reply, encode_vector
from producer.wire.keys import Kind, Lane, QueueKeys
from producer.wire.messages import FailureReply, Heartbeat, Reply, Row, ScoreReply
from producer.wire.scripts import LaneLimit, ScriptCall

CHANNEL = "hint:test"
EMBED_QUEUE = QueueKeys(task="embed", tag="offline-03769976")
RERANK_QUEUE = QueueKeys(task="rerank", tag="offline-bc6f7ab0")
WIDE = LaneLimit(rows=1000, size_bytes=1_000_000)
_ALL = 1_000_000_000


class ManualClock:
    """A monotonic clock that moves when told."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


def query(text: str) -> Row:
    return Row(kind=Kind.QUERY, text=text)


def passage(text: str) -> Row:
    return Row(kind=Kind.PASSAGE, text=text)


def pair(document: str, question: str = "q") -> Row:
    return Row(kind=Kind.PAIR, text=document, query=question)


def vector_of(text: str) -> Vector:
    """The vector that the fake worker gives a text: 4 numbers made of its hash."""
    return np.frombuffer(sha256(text.encode()).digest()[:4], dtype=np.uint8).astype(np.float32)


def result_of(row: Row) -> Reply:
    """What the fake worker answers: the text's vector; for a pair, the document's length as its score."""
    if row.kind is Kind.PAIR:
        return ScoreReply(score=float(len(row.text)))
    return encode_vector(vector_of(row.text))


def failure(code: str = "model_failed", message: str = "the model raised ValueError", at_ms: int = 1) -> FailureReply:
    return FailureReply(code=code, message=message, failed_at_ms=at_ms)


def heartbeat(**changes: Any) -> Heartbeat:
    """A heartbeat of a healthy worker at time 0."""
    values: dict[str, Any] = {
        "model": "offline",
        "model_loaded": True,
        "dimension": 4,
        "host": "host",
        "pid": 7,
        "state": "running",
        "in_flight_rows": 0,
        "rows_done": 0,
        "rows_per_s": 0.0,
        "started_at_ms": 0,
        "beat_at_ms": 0,
        "progressed_at_ms": 0,
        "batch_limit_ms": 0,
    }
    return Heartbeat(**{**values, **changes})


def queue_state(queue: QueueKeys, *, waiting: int = 0, in_flight: int = 0, workers: int = 0) -> QueueState:
    """A queue whose two lanes stand alike, with so many healthy workers."""
    lane = LaneState(waiting=waiting, in_flight=in_flight, rows=0, size_bytes=0, oldest_age_ms=0, dead=0)
    return QueueState(
        task=queue.task,
        tag=queue.tag,
        lanes=dict.fromkeys(Lane, lane),
        dead=0,
        workers=tuple(
            WorkerState(name=f"host/{number}", heartbeat=heartbeat(), alive=True, progress_age_ms=0)
            for number in range(workers)
        ),
        counters={},
        card=None,
    )


class RedisInMemory(fakeredis.FakeRedis):
    """With the one command that fakeredis lacks and workers send."""

    def memory_usage(self, key: Any, samples: int | None = None, **kwargs: Any) -> int:
        return 0


def redis_in_memory() -> redis.Redis:
    """A Redis of its own, with Lua, in this process."""
    client: redis.Redis = RedisInMemory(server=fakeredis.FakeServer())
    return client


def run_script(client: redis.Redis, call: ScriptCall) -> Any:
    """Run a script as the clients do, without their fallback: the script is loaded here."""
    client.script_load(call.script.source.decode())
    return client.execute_command(*call.command)


def offline_core(clock: ManualClock, **settings: Any) -> Core:
    return Core(ProducerSettings(embed_model="offline", rerank_model="offline", **settings), clock)


def nobody(row: Row) -> Reply | None:
    """A worker that answers nothing."""
    return None


class FakeServer:
    """Redis and one worker for a flow, over dicts: whenever the caller waits, the worker runs what is queued.

    The attributes below say what goes wrong; the lists say what the caller did.
    """

    def __init__(self, clock: ManualClock, work: Callable[[Row], Reply | None] = result_of) -> None:
        self.clock = clock
        self.work = work
        self.rows_per_wait = _ALL
        self.lose_hints = False
        self.lose_next_rows = 0
        self.full_calls = 0
        self.refused_calls = 0
        self.unreadable_lookups = 0
        self.stray_hints: set[bytes] = set()
        self.state: QueueState | RedisUnavailable | None = None
        self.pools: dict[bytes, bytes] = {}
        self.unwatched: set[bytes] = set()
        self.values: dict[str, bytes] = {}
        self.queue: list[Row] = []
        self.enqueued: list[list[Row]] = []
        self.lanes: set[str] = set()
        self.budgets_ms: list[int] = []
        self.counts: list[tuple[int, int]] = []
        self.lookups: list[int] = []
        self.waits_s: list[float] = []
        self.pulls: list[int] = []
        self.pulled = self.emitted = self.most_held = 0

    @property
    def sent(self) -> list[str]:
        """The texts of all rows that were put on a lane, in order."""
        return [row.text for rows in self.enqueued for row in rows]

    def put(self, row: Row, reply: Reply | None = None, *, data: bytes = b"") -> None:
        """Put a reply (by default the right one) or any bytes under a row's reply key."""
        self.values[row.digest.hex()] = data or encode_reply(reply or result_of(row))

    def run(self, flow: Flow[Result]) -> Result:
        steps = Steps(flow)
        assert list(self.drive(steps, ())) == []
        return steps.result

    def iterate(self, flow: Flow[None], texts: Iterable[str]) -> Iterator[Any]:
        return self.drive(Steps(flow), texts)

    def drive(self, steps: Steps[Any], texts: Iterable[str]) -> Iterator[Any]:
        source = iter(texts)
        while (effect := steps.effect) is not None:
            if isinstance(effect, Emit):
                self.emitted += 1
                yield effect.value
                steps.send(None)
            elif isinstance(effect, Pull):
                pulled = list(islice(source, effect.count))
                self.pulls.append(effect.count)
                self.pulled += len(pulled)
                self.most_held = max(self.most_held, self.pulled - self.emitted)
                steps.send(pulled)
            else:
                try:
                    answer = self._perform(effect)
                except HeadraceError as error:
                    steps.throw(error)
                else:
                    steps.send(answer)

    def _perform(self, effect: Effect) -> Any:
        match effect:
            case Lookup(keys, _):
                return self._look_up(keys)
            case Peek(keys):
                return [self.values.get(key.rsplit(":", 1)[1], b"")[:PEEK_BYTES] for key in keys]
            case Enqueue():
                return self._enqueue(effect)
            case Wait(timeout_s):
                return self._wait(timeout_s)
            case Unwatch(digests):
                self.unwatched |= set(digests)
                return None
            case Count(_, hits, misses):
                return self.counts.append((hits, misses))
            case Inspect(queue):
                if isinstance(self.state, RedisUnavailable):
                    raise self.state
                return self.state or queue_state(queue)
            case ListPools():
                return self.pools
        raise AssertionError(f"no such effect: {effect}")

    def _look_up(self, keys: tuple[str, ...]) -> list[bytes | None]:
        self.lookups.append(len(keys))
        if self.unreadable_lookups:
            self.unreadable_lookups -= 1
            raise RedisUnavailable("Redis cannot be reached")
        return [self.values.get(key.rsplit(":", 1)[1]) for key in keys]

    def _enqueue(self, effect: Enqueue) -> tuple[int, int, int, int]:
        lane, channel, budget_ms, _, _, _, header, *texts = effect.call(CHANNEL).arguments
        assert channel == CHANNEL
        self.lanes.add(str(lane))
        if self.refused_calls:
            self.refused_calls -= 1
            raise RedisUnavailable("Redis cannot be reached")
        if self.full_calls:
            self.full_calls -= 1
            return 0, 0, 7, 0
        shared = msgpack.unpackb(bytes(header))  # type: ignore[arg-type]
        rows = [Row(kind=Kind(shared["kind"]), text=bytes(text).decode(), query=shared.get("query")) for text in texts]  # type: ignore[arg-type]
        assert tuple(row.digest for row in rows) == effect.digests
        self.enqueued.append(rows)
        self.budgets_ms.append(int(budget_ms))
        lost, self.lose_next_rows = self.lose_next_rows, max(0, self.lose_next_rows - len(rows))
        self.queue += rows[lost:]
        return len(rows), 0, len(self.queue), len(rows)

    def _wait(self, timeout_s: float) -> set[bytes]:
        self.waits_s.append(timeout_s)
        batch, self.queue = self.queue[: self.rows_per_wait], self.queue[self.rows_per_wait :]
        hints, self.stray_hints = self.stray_hints, set()
        for row in batch:
            if (reply := self.work(row)) is not None:
                self.put(row, reply)
                hints.add(row.digest)
        if hints and not self.lose_hints:
            self.clock.advance(0.001)
            return hints
        self.clock.advance(timeout_s)
        return set()
