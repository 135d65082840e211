"""The worker of detached re-embeddings: RQ's own, which runs our jobs alone and finds abandoned ones soon."""

import logging
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from rq import Queue, Worker
from rq.job import Job
from rq.serializers import JSONSerializer

from producer.bulk.detached import SILENT_S
from producer.bulk.job_queue import ReembedJob, ReembedQueue, connect_queue, queue_name
from producer.connection import redis_errors
from producer.settings import SharedSettings

_WAIT_S = 20
_WORKER_TTL_S = _WAIT_S + 15
"""RQ waits for jobs 15 seconds less than this, and looks for abandoned ones only between two waits."""

_LOOK_AFTER_S = _WAIT_S - 5
_BEAT_EVERY_S = 10
"""A job is abandoned a minute after the beat that did not come."""


class ReembedWorker(Worker):
    """RQ's worker with jobs and queues of our classes, whatever it is told, and failures in one line."""

    job_class = ReembedJob
    queue_class: type[Queue] = ReembedQueue

    def __init__(self, queues: Any, name: str | None = None, **options: Any) -> None:
        classes = {"job_class": ReembedJob, "queue_class": ReembedQueue, "serializer": JSONSerializer}
        super().__init__(queues, name, **{**options, **classes})

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """Log why a job failed: what it raises has been made fit to be shown, and its frames are RQ's."""
        self.log.error("job %s: %s", job.id, " ".join(str(exc_info[1]).split()))

    def handle_work_horse_killed(self, job: Job, *died: Any) -> None:
        """Keep what the killed process has told of its progress: RQ writes the job as it was before."""
        super().handle_work_horse_killed(job, *died)  # type: ignore[no-untyped-call]
        with suppress(ValueError):
            job.get_meta()


def run_worker(settings: SharedSettings, *, burst: bool, log_level: str) -> None:
    """Run jobs until told to stop: SIGTERM or Ctrl-C waits for the running one, a second one ends it as well.

    With `burst`, until the queue is empty.

    Raises:
        RedisUnavailable: Redis cannot be reached, or refuses.
    """
    with connect_queue(settings) as connection, redis_errors():
        connection.ping()
    with connect_queue(settings, patient=True) as connection, redis_errors():
        worker = ReembedWorker(
            [queue_name(settings.namespace)],
            connection=connection,
            worker_ttl=_WORKER_TTL_S,
            maintenance_interval=_LOOK_AFTER_S,
            job_monitoring_interval=_BEAT_EVERY_S,
        )
        worker.log.addFilter(_is_news)
        worker.work(burst=burst, logging_level=log_level.upper())


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of RQ's log tells anything: two of each look for abandoned jobs, 8,640 a day, do not."""
    return not str(record.msg).startswith("Worker %s: cleaning ")


def alive_here(settings: SharedSettings) -> int:
    """How many workers of this host or container listen to the queue and beat."""
    host, alive = socket.gethostname(), 0
    with connect_queue(settings) as connection, redis_errors():
        queue = ReembedQueue(queue_name(settings.namespace), connection)
        for worker in ReembedWorker.all(queue=queue):
            beat = worker.last_heartbeat
            silent_s = (datetime.now(UTC) - beat).total_seconds() if beat else SILENT_S
            alive += worker.hostname == host and silent_s < SILENT_S
    return alive


def lend_environment(values: Mapping[str, str]) -> None:
    """Set what jobs shall find in this process's environment: a flag of the worker counts for them, too."""
    os.environ.update({name: value for name, value in values.items() if value})
