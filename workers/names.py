"""Names of worker processes: stable slots of a host, taken so that no two live processes have the same."""

import itertools
import os
import socket
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import ResponseError

from producer.connection import is_full, run_script
from producer.errors import MalformedMessage
from producer.wire import scripts
from producer.wire.codec import decode_message, encode_message
from producer.wire.keys import QueueKeys
from producer.wire.messages import Heartbeat

_FORGOTTEN_MS = 600_000


def take_names(client: redis.Redis, queue: QueueKeys, model: str, count: int, mine: list[str]) -> list[str]:
    """Take up to `count` names beside `mine` that look free, lowest first; fewer if another pool was faster.

    Names are stable, so that a restarted pool finds its own unfinished entries, and consumers do not pile up.
    """
    seconds, _ = client.time()
    now_ms = seconds * 1000
    beats = _read_beats(client, queue)
    candidates = (f"{socket.gethostname()}/{number}" for number in itertools.count())
    free = (name for name in candidates if name not in mine and not _is_live(beats.get(name.encode()), now_ms))
    first_beat = encode_message(_first_beat(model, now_ms))

    def claim(name: str) -> bool:
        try:
            return bool(run_script(client, scripts.claim(queue, name, beats.get(name.encode(), b""), first_beat)))
        except ResponseError as error:
            if not is_full(error):
                raise
            return True  # a full Redis needs workers to drain it

    return [name for name in itertools.islice(free, count) if claim(name)]


def _read_beats(client: redis.Redis, queue: QueueKeys) -> dict[bytes, bytes]:
    """Read all heartbeats; where no hash is, there is nothing worth keeping."""
    try:
        beats: Any = client.hgetall(queue.workers)
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        client.delete(queue.workers)
        return {}
    return dict(beats)


def _first_beat(model: str, now_ms: int) -> Heartbeat:
    """What stands for a worker until it beats itself: its parent lives, and nothing is loaded."""
    return Heartbeat(
        model=model,
        model_loaded=False,
        dimension=0,
        host=socket.gethostname(),
        pid=os.getpid(),
        state="starting",
        in_flight_rows=0,
        rows_done=0,
        rows_per_s=0.0,
        started_at_ms=now_ms,
        beat_at_ms=now_ms,
        progressed_at_ms=now_ms,
        batch_limit_ms=0,
    )


def _is_live(beat: bytes | None, now_ms: int) -> bool:
    """Whether a heartbeat's process runs, however silent; one that cannot be read is another release's, and live.

    A worker is silent while it stands still or Redis is away. After long enough its number may be another process's.
    """
    if beat is None:
        return False
    try:
        heartbeat = decode_message(Heartbeat, beat)
    except MalformedMessage:
        return True
    return now_ms - heartbeat.beat_at_ms < _FORGOTTEN_MS and _runs(heartbeat.pid)


def _runs(pid: int) -> bool:
    """Whether a process of that pid runs here. Heartbeats of other hosts have other names and do not matter."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except OSError:
        return True  # not ours to signal, or a system without /proc
    return state not in ("Z", "X")  # killed, and only not yet reaped
