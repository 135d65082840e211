"""Detached jobs as their owner sees them: which there are, how far each is, and their end before time."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import redis
from rq.command import send_stop_job_command
from rq.exceptions import DeserializationError, InvalidJobOperation, NoSuchJobError
from rq.job import Job
from rq.registry import (
    BaseRegistry,
    CanceledJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
)
from rq.serializers import JSONSerializer
from rq.worker_registration import get_keys

from producer.bulk.job_queue import FUNCTION, ReembedJob, ReembedQueue, queue_name
from producer.bulk.jobs import KEPT_S
from producer.connection import redis_errors
from producer.errors import InvalidRequest, ResultTimeout

SILENT_S = 180.0
"""A worker that says nothing for so long is gone: RQ's beat every 30 seconds while they run a job, and RQ has forgotten
150 seconds after the last beat what was running."""

_STOP_WITHIN_S = 30.0
_ASK_AGAIN_S = 2.0
_POLL_S = 0.2
_REGISTRIES: tuple[type[BaseRegistry], ...] = (
    StartedJobRegistry,
    ScheduledJobRegistry,
    FinishedJobRegistry,
    FailedJobRegistry,
    CanceledJobRegistry,
)
_KILLED = "its process was killed at every attempt, or RQ could not run it at all"
_OVER = ("finished", "failed", "stopped", "canceled")


@dataclass(frozen=True, kw_only=True)
class DetachedJob:
    """One job. `status` is RQ's word, or "abandoned" for one whose worker is gone: another worker takes it up.

    What the run has not told is None: before its start, and where it does not know.
    """

    id: str
    status: str
    source: str
    sink: str
    model: str
    attempt: int
    error: str
    created_at: datetime
    ended_at: datetime | None
    rows: int
    total: int | None
    cached_rows: int
    rejected: int
    rows_per_s: float | None
    tokens_per_s: float | None
    eta_s: float | None
    result: Mapping[str, Any] | None

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status in _OVER

    @property
    def percent(self) -> float | None:
        """How much of it is done, rejects too; None where nobody knows the total."""
        return 100 * (self.rows + self.rejected) / self.total if self.total else None


def list_jobs(connection: redis.Redis, namespace: str) -> list[DetachedJob]:
    """All jobs of a namespace that are kept, newest first."""
    name = queue_name(namespace)
    with redis_errors():
        ids = dict.fromkeys(ReembedQueue(name, connection).get_job_ids())
        for registry in _REGISTRIES:
            kept = registry(name, connection, job_class=ReembedJob, serializer=JSONSerializer)
            ids.update(dict.fromkeys(kept.get_job_ids(cleanup=False)))
        found = ReembedJob.fetch_many(list(ids), connection)
    jobs = [_view(job) for job in found if job is not None and _is_ours(job, name)]
    return sorted(jobs, key=lambda job: job.created_at, reverse=True)


def find_job(connection: redis.Redis, namespace: str, job_id: str) -> DetachedJob:
    """One job as it is now; with its result, once it has one.

    Raises:
        InvalidRequest: there is none of that id.
    """
    with redis_errors():
        job = _fetch(connection, namespace, job_id)
        view = _view(job)
        return view if view.status != "finished" else _view(job, job.return_value())


def count_workers(connection: redis.Redis, namespace: str) -> int:
    """How many workers listen to the queue of a namespace."""
    with redis_errors():
        return len(get_keys(ReembedQueue(queue_name(namespace), connection)))


def cancel_job(
    connection: redis.Redis,
    namespace: str,
    job_id: str,
    *,
    within_s: float = _STOP_WITHIN_S,
    sleep: Callable[[float], None] = time.sleep,
) -> DetachedJob:
    """Take a job off the queue, or have its worker stop it and wait until it has; one that is over stays as it is.

    Raises:
        InvalidRequest: there is none of that id.
        ResultTimeout: its worker does not stop it.
    """
    deadline = time.monotonic() + within_s
    asked_at_s = float("-inf")
    while time.monotonic() < deadline:
        with redis_errors():
            job = _fetch(connection, namespace, job_id)
            view = _view(job)
            if view.over:
                return view
            if view.status != "started":
                _withdraw(job)
            elif time.monotonic() - asked_at_s >= _ASK_AGAIN_S:
                asked_at_s = time.monotonic()
                _ask_to_stop(connection, job_id)
        sleep(_POLL_S)
    raise ResultTimeout(f"the worker of job {job_id} has not stopped it within {within_s:.0f} s")


def _withdraw(job: Job) -> None:
    job.cancel()
    job.connection.expire(job.key, KEPT_S)


def _ask_to_stop(connection: redis.Redis, job_id: str) -> None:
    try:
        send_stop_job_command(connection, job_id, serializer=JSONSerializer)
    except (InvalidJobOperation, NoSuchJobError):
        return  # it has ended meanwhile; the next look says how


def _fetch(connection: redis.Redis, namespace: str, job_id: str) -> Job:
    try:
        job = ReembedJob.fetch(job_id, connection)
    except (NoSuchJobError, ValueError):
        job = None
    if job is None or not _is_ours(job, queue_name(namespace)):
        raise InvalidRequest(f"there is no detached job {job_id!r} (they are kept for {KEPT_S // 86400} days)")
    return job


def _is_ours(job: Job, name: str) -> bool:
    try:
        values = job.args
        return job.origin == name and job.func_name == FUNCTION and [isinstance(v, dict) for v in values] == [True] * 2
    except (DeserializationError, TypeError):
        return False


def _view(job: Job, result: Any = None) -> DetachedJob:
    order, settings = job.args
    meta = job.meta if isinstance(job.meta, dict) else {}
    status = str(job.get_status(refresh=False).value)
    if status == "started" and _silent_s(job) > SILENT_S:
        status = "abandoned"
    return DetachedJob(
        id=job.id,
        status=status,
        source=str(order.get("source", "")),
        sink=str(order.get("sink", "")),
        model=str(settings.get("embed_model", "")),
        attempt=_whole(meta, "attempt"),
        error=str(meta.get("error") or (_KILLED if status == "failed" else "")),
        created_at=job.created_at,
        ended_at=job.ended_at if status in _OVER else None,
        rows=_whole(meta, "rows"),
        total=_whole(meta, "total") or None,
        cached_rows=_whole(meta, "cached_rows"),
        rejected=_whole(meta, "rejected"),
        rows_per_s=_number(meta, "rows_per_s"),
        tokens_per_s=_number(meta, "tokens_per_s"),
        eta_s=_number(meta, "eta_s"),
        result=result if isinstance(result, Mapping) else None,
    )


def _number(meta: Mapping[str, Any], name: str) -> float | None:
    value = meta.get(name)
    return float(value) if isinstance(value, int | float) else None


def _whole(meta: Mapping[str, Any], name: str) -> int:
    value = meta.get(name)
    return value if isinstance(value, int) else 0


def _silent_s(job: Job) -> float:
    beat = job.last_heartbeat or job.started_at or job.created_at
    return (datetime.now(UTC) - beat).total_seconds()
