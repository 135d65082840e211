"""RQ as detached re-embeddings use it: its queue, jobs as JSON, and no function but ours."""

from typing import Any

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from producer.connection import connect
from producer.errors import InvalidRequest
from producer.settings import SharedSettings

QUEUE = "headrace-reembed"
FUNCTION = "producer.bulk.jobs.run"
"""What every job calls, by the name that jobs in Redis carry."""

_OLDEST_REDIS = (6, 2, 0)
_PATIENT_RETRIES = 10


class ReembedJob(Job):
    """A job whose data is JSON, whatever a caller says, and that calls nothing but `FUNCTION`.

    Who may write to RQ's keys chooses what a job calls, before, after and instead; of that only our function counts.
    """

    def __init__(self, id: str | None = None, connection: redis.Redis | None = None, serializer: Any = None) -> None:
        super().__init__(id, connection, JSONSerializer)

    def restore(self, raw_data: Any) -> None:
        """Read what Redis holds, without the callbacks, webhooks and limits that no job of ours has."""
        super().restore(raw_data)
        self._success_callback_name = self._failure_callback_name = self._stopped_callback_name = None
        self.webhooks = []
        self.rate_limit_key = self.rate_limit_concurrency = None
        self.repeats_left = self.group_id = None
        if self._unreadable_meta is not None or not isinstance(self.meta, dict):
            self.meta, self._unreadable_meta = {}, None

    def _execute(self) -> Any:
        if self.func_name != FUNCTION or self.instance:
            self.retries_left = 0
            raise InvalidRequest("the job calls another function than a re-embedding's, and was not run")
        return super()._execute()


class ReembedQueue(Queue):
    """The queue of one namespace, with jobs of our class."""

    job_class = ReembedJob

    def __init__(self, name: str = QUEUE, connection: redis.Redis | None = None, **options: Any) -> None:
        super().__init__(name, connection, **{**options, "job_class": ReembedJob, "serializer": JSONSerializer})

    def get_redis_server_version(self) -> tuple[int, int, int]:
        """Not asked of the server: its users may not send INFO, and Headrace needs this one."""
        return _OLDEST_REDIS


def queue_name(namespace: str) -> str:
    """The queue of a namespace; RQ's own keys begin with `rq:` in all of them."""
    return f"{namespace}:{QUEUE}" if namespace else QUEUE


def connect_queue(settings: SharedSettings, *, patient: bool = False) -> redis.Redis:
    """Make a client for RQ where the settings say; nothing is connected yet.

    Commands are not repeated by themselves, since RQ's are not made for it; a `patient` client tries for about a
    minute, as a worker should whose Redis fails over.

    Raises:
        ConfigurationError: the URL cannot be read.
    """
    client = connect(settings)
    retries = _PATIENT_RETRIES if patient else 0
    backoff = ExponentialWithJitterBackoff(base=1, cap=10)
    client.connection_pool.connection_kwargs["retry"] = Retry(backoff, retries, (redis.exceptions.ConnectionError,))
    return client
