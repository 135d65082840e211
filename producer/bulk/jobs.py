"""Detached re-embedding: puts an order on RQ's queue, and is the function that RQ's worker calls."""

import dataclasses
import logging
import os
import secrets
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

import redis
from redis.connection import SSLConnection, UnixDomainSocketConnection
from redis.exceptions import RedisError
from rq import Retry, get_current_job
from rq.job import Job
from rq.timeouts import JobTimeoutException

from producer.bulk.job_queue import FUNCTION, ReembedQueue, queue_name
from producer.bulk.order import Order
from producer.bulk.progress import Progress
from producer.bulk.urls import STANDARD, absolute
from producer.connection import redis_errors
from producer.errors import ConfigurationError, HeadraceError, RedisUnavailable, ResultTimeout, StoreUnavailable
from producer.orphans import end_with_parent
from producer.qdrant import SCHEMES
from producer.settings import ProducerSettings, StoreSettings, load

logger = logging.getLogger("headrace.reembed")

JOB_TIMEOUT_S = 7 * 86400
KEPT_S = 7 * 86400
"""How long a job is listed after its end."""

RETRIES = 20
"""Further attempts after failures that may pass; with their pauses they outlast a quarter of an hour."""

_LONGEST_PAUSE_S = 60.0
_SAVE_EVERY_S = 2.0
_CARRIED = ("embed_model", "namespace", "max_text_bytes", "bulk_timeout_s", "lane_limit", "lane_limit_bytes")
"""Settings that travel with a job; where Redis is and every secret are the worker's own."""

_TLS_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs")


def enqueue(order: Order, settings: ProducerSettings, connection: redis.Redis) -> str:
    """Put an order on the queue of the settings' namespace; return the job's id.

    Raises:
        ConfigurationError: a standard stream cannot be detached from its terminal, a URL is none of ours, or a
            condition or the template cannot be read.
        InvalidRequest: the kind is none.
        RedisUnavailable: Redis cannot be reached, or refuses.
    """
    order.check()
    order = dataclasses.replace(order, source=_absolute(order.source), sink=_absolute(order.sink))
    carried = {name: getattr(settings, name) for name in _CARRIED}
    job_id = secrets.token_hex(6)
    with redis_errors():
        ReembedQueue(queue_name(settings.namespace), connection).enqueue_call(
            FUNCTION,
            args=(order.as_json(), carried),
            timeout=JOB_TIMEOUT_S,
            result_ttl=KEPT_S,
            failure_ttl=KEPT_S,
            retry=Retry(max=RETRIES),
            description=f"re-embed {order.source} into {order.sink}",
            job_id=job_id,
        )
    return job_id


def run(order: Mapping[str, Any], carried: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out an order, from where the job's last attempt came to; the answer is the `Outcome` as JSON values.

    Called by RQ's worker, also a plain `rq worker`. A failure is one line, in the job's meta as well; one that another
    attempt will not mend is not retried.
    """
    job = get_current_job()
    if job is None:
        raise ConfigurationError(f"{FUNCTION} runs as a job of RQ's only")
    if os.environ.get("RQ_JOB_ID") == job.id:
        end_with_parent()  # a job without its worker is soon retried, and two would write to one sink
    report = _Report(job)
    try:
        from producer.bulk.runs import run_order  # noqa: PLC0415 - whoever only enqueues need not load it

        settings, store = _settings(job.connection, carried), load(StoreSettings, os.environ)
        mine = dataclasses.replace(Order.from_json(order), job=job.id)
        outcome = run_order(mine, settings, store, on_progress=report)
        report.end(rows=outcome.rows, rejected=outcome.rejected, eta_s=0.0)
        return dataclasses.asdict(outcome)
    except JobTimeoutException:
        report.end(error="the job used up its time")
        raise
    except HeadraceError as error:
        _take_failure(job, report, error)
        raise error.with_traceback(None) from None
    except Exception as error:  # noqa: BLE001 - its text may hold a user's, and goes nowhere
        frames = "".join(traceback.format_tb(error.__traceback__))
        logger.error("job %s: %s\n%s", job.id, type(error).__name__, frames)
        failure = HeadraceError(f"internal error ({type(error).__name__}): the worker's log says where")
        _take_failure(job, report, failure)
    raise failure


class _Report:
    """Keeps a job's meta up to date, at most every 2 seconds; a Redis that is away stops nothing."""

    def __init__(self, job: Job, clock: Callable[[], float] = time.monotonic) -> None:
        self._job = job
        self._clock = clock
        attempt = RETRIES + 1 - (job.retries_left or 0)
        job.meta.pop("error", None)
        job.meta.update(attempt=attempt, started_at=time.time())
        self._save()
        self._saved_at_s = float("-inf")  # the first progress is news

    def __call__(self, progress: Progress) -> None:
        self._job.meta.update(dataclasses.asdict(progress))
        if self._clock() - self._saved_at_s >= _SAVE_EVERY_S:
            self._save()

    def end(self, **values: Any) -> None:
        """Add last values, and save in any case."""
        self._job.meta.update(values)
        self._save()

    def _save(self) -> None:
        self._saved_at_s = self._clock()
        self._job.meta["updated_at"] = time.time()
        try:
            self._job.save_meta()  # type: ignore[no-untyped-call]
        except (RedisError, OSError):
            logger.warning("job %s: its progress cannot be written to Redis", self._job.id)


def _take_failure(job: Job, report: _Report, error: HeadraceError) -> None:
    """Write a failure down; pause before the next attempt, or see to it that there is none."""
    line = " ".join(str(error).split())
    left = job.retries_left or 0
    if not may_pass(error):
        job.retries_left = 0
    elif left > 0:
        report.end(error=f"{line}; {left} attempts left")
        time.sleep(pause_s(RETRIES - left))
        return
    report.end(error=line)


def may_pass(error: HeadraceError) -> bool:
    """Whether another attempt may succeed: somebody does not answer now, but has refused nothing."""
    refused = isinstance(error, ConfigurationError) or error.code.endswith("_refused")
    return isinstance(error, StoreUnavailable | RedisUnavailable | ResultTimeout) and not refused


def pause_s(failures: int) -> float:
    """How long to wait after so many failures before: a plain `rq worker` has no scheduler, and retries at once."""
    return min(_LONGEST_PAUSE_S, 2.0 ** min(failures, 10))


def _settings(connection: redis.Redis, carried: Mapping[str, Any]) -> ProducerSettings:
    """The worker's own settings with what the job brought; without REDIS_URL, the Redis of RQ's connection."""
    unknown = carried.keys() - set(_CARRIED)
    if unknown:
        raise ConfigurationError(f"this release cannot read the settings of that job ({', '.join(sorted(unknown))})")
    environ = dict(os.environ)
    if not environ.get("REDIS_URL"):
        environ["REDIS_URL"] = url_of(connection)
    return load(ProducerSettings, environ, **carried)


def url_of(connection: redis.Redis) -> str:
    """The URL of a plain connection, with its credentials and the files of its TLS.

    Raises:
        ConfigurationError: it has no place of its own (Sentinels).
    """
    pool = connection.connection_pool
    options = pool.connection_kwargs
    login = ":".join(quote(options.get(name) or "", safe="") for name in ("username", "password"))
    at = f"{login}@" if login != ":" else ""
    database = int(options.get("db") or 0)
    if issubclass(pool.connection_class, UnixDomainSocketConnection):
        return f"unix://{at}{options['path']}?db={database}"
    if not options.get("host"):
        raise ConfigurationError("set REDIS_URL for the worker: its connection names no host")
    secure = issubclass(pool.connection_class, SSLConnection)
    host = f"[{options['host']}]" if ":" in options["host"] else options["host"]
    files = {name: options[name] for name in _TLS_FILES if secure and isinstance(options.get(name), str)}
    query = f"?{urlencode(files)}" if files else ""
    return f"redis{'s' * secure}://{at}{host}:{options.get('port') or 6379}/{database}{query}"


def _absolute(end: str) -> str:
    """A source or sink as a worker in another folder finds it."""
    if end == STANDARD:
        raise ConfigurationError("a detached run has no standard input and output: name files or collections")
    if "://" in end and end.partition(":")[0] not in SCHEMES:
        raise ConfigurationError("a detached run reads and writes files and collections of Qdrant's, and no other URL")
    return absolute(end)
