"""One worker process from its first line to its exit code: cores, signals, model, card, engine."""

import logging
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, OutOfMemoryError, RedisError, ResponseError
from redis.retry import Retry

from producer.connection import connect
from producer.errors import ConfigurationError, HeadraceError, MalformedMessage, redacted
from producer.wire.codec import decode_message, encode_message
from producer.wire.keys import QueueKeys
from producer.wire.messages import ModelCard
from producer.wire.models import TaskName, resolve
from producer.wire.signing import Seal
from workers.budget import UNKNOWN, BatchBudget
from workers.ledger import Ledger
from workers.progress import Progress
from workers.pulse import Pulse, forget_old_workers
from workers.runner import Runner
from workers.settings import WorkerSettings, cores_for_slot
from workers.stopping import EXIT_CONFIGURATION, SignalCount, StopFlag
from workers.streams import Streams
from workers.tasks import Task
from workers.vitals import Vitals

logger = logging.getLogger("headrace.worker")

_CARD_MARGIN_S = 3600
_BLOCK_MARGIN_S = 10.0


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """What a task's `load` hands to the engine."""

    task: Task
    card: ModelCard
    budget: BatchBudget = UNKNOWN


Load = Callable[[WorkerSettings], LoadedModel]
"""Loads and warms a task's model, with the settings' number of threads."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which of a pool's processes one is."""

    number: int
    name: str
    vitals: Vitals


def serve(task: TaskName, load: Load, settings: WorkerSettings, place: Place) -> None:
    """Be one worker process; ends by sys.exit. Everything heavy happens here, in the child, never before a fork."""
    configure_logging(settings.log_level)
    stopping, serving = StopFlag(), StopFlag()
    _handle_signals(stopping, serving)
    # Settled before this process is pinned, which would make the machine look smaller.
    settings = replace(settings, threads=settings.threads_per_process())
    limit_cpu(task, settings, place.number)
    try:
        _work(task, load, settings, place, stopping=stopping, serving=serving)
    except HeadraceError as error:
        logger.error("%s", error)
        sys.exit(EXIT_CONFIGURATION if isinstance(error, ConfigurationError) else 1)


def configure_logging(level: str) -> None:
    """Log to standard error; texts never, lengths and digests at most."""
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)


def _work(
    task: TaskName,
    load: Load,
    settings: WorkerSettings,
    place: Place,
    *,
    stopping: StopFlag,
    serving: StopFlag,
) -> None:
    model_name = settings.model(task)
    queue = QueueKeys.of(resolve(task, model_name), settings.namespace)
    client = connect_worker(settings)
    ledger, progress = Ledger(), Progress(place.vitals)
    card_ttl_s = settings.reply_ttl_s + _CARD_MARGIN_S
    pulse = Pulse(
        client=connect_worker(settings),
        queue=queue,
        name=place.name,
        model=model_name,
        ledger=ledger,
        progress=progress,
        card_ttl_s=card_ttl_s,
        lease_s=settings.lease_s,
        batch_limit_s=settings.batch_limit_s,
        parent_alive=_parent_alive,
        is_stopping=stopping.is_set,
        leave=lambda: _leave(stopping, serving, place.vitals.working_s() > settings.batch_limit_s),
    )
    pulse.start()
    try:
        logger.info("loading %s with %d threads", model_name, settings.threads)
        loaded = load(settings)
        streams = Streams(client, queue, place.name, Seal(settings.cache_key))
        claim_card(streams, loaded.card, card_ttl_s, stopping)
        serving.set()
        place.vitals.note_served()
        progress.tick()
        pulse.card, pulse.state = loaded.card, "running"
        logger.info("serving %s:%s as %s", task, queue.tag, place.name)
        _engine(loaded, settings, streams, ledger=ledger, progress=progress, stopping=stopping).run()
        logger.info("stopped after %d rows", progress.rows_done)
    finally:
        pulse.close()


def _engine(
    loaded: LoadedModel,
    settings: WorkerSettings,
    streams: Streams,
    *,
    ledger: Ledger,
    progress: Progress,
    stopping: StopFlag,
) -> Runner:
    return Runner(
        task=loaded.task,
        streams=streams,
        ledger=ledger,
        progress=progress,
        stopping=stopping,
        batch_tokens=settings.batch_tokens or loaded.budget.tokens,
        tokens_per_s=loaded.budget.tokens_per_s,
        row_by_row=not loaded.card.batch_invariant,
        bulk_share=settings.bulk_share,
        reply_ttl_s=settings.reply_ttl_s,
        lease_s=settings.lease_s,
        max_text_bytes=settings.max_text_bytes,
        most_rows=_spread(settings.recycle_rows) if settings.recycle_rows else float("inf"),
    )


def _spread(rows: int) -> float:
    """Up to a tenth more or less, so that the processes of a pool are not replaced all at once."""
    return rows * random.uniform(0.9, 1.1)  # noqa: S311


def connect_worker(settings: WorkerSettings) -> redis.Redis:
    """A client for a worker: a timeout above its blocking reads, and no silent retries.

    A repeated XREADGROUP would strand the entries of the lost reply; the engine reads its own list instead.
    """
    client = connect(settings)
    client.connection_pool.connection_kwargs.update(
        socket_timeout=_BLOCK_MARGIN_S, retry=Retry(NoBackoff(), 0), health_check_interval=0
    )
    return client


def refused(error: AuthenticationError) -> ConfigurationError:
    """The error of a process that Redis does not let in; another start would not help."""
    return ConfigurationError(f"Redis refuses the user or the password: {redacted(error)}", code="redis_refused")


def claim_card(streams: Streams, card: ModelCard, ttl_s: int, stopping: StopFlag) -> None:
    """Publish the model card, or find the same weights on the one that is there.

    Raises:
        ConfigurationError: a pool with other weights runs, or ran within the life of its cached results.
    """
    key = streams.queue.card
    while not stopping.is_set():
        try:
            published = _read_card(streams)
            if published is None:
                streams.client.set(key, encode_message(card), ex=ttl_s, nx=True)
                published = _read_card(streams) or card
        except OutOfMemoryError:
            published = card  # published when there is room: a full Redis needs workers to drain it
        except AuthenticationError as error:
            raise refused(error) from error
        except (RedisError, OSError) as error:
            logger.warning("Redis does not serve yet: %s", redacted(error))
            stopping.wait(1.0)
            continue
        if published.weights_sha256 != card.weights_sha256:
            raise ConfigurationError(
                f"other weights are published for {card.task} model {card.model!r} "
                f"(SHA-256 {published.weights_sha256[:12]}…, here {card.weights_sha256[:12]}…): results of both would "
                "share one cache; run the new ones under a name of their own, such as "
                f"{card.model}@2, or wait until the old results have expired"
            )
        _tidy(streams)
        return


def _read_card(streams: Streams) -> ModelCard | None:
    try:
        data: Any = streams.client.get(streams.queue.card)
        return decode_message(ModelCard, data) if data else None
    except (MalformedMessage, ResponseError) as error:
        if isinstance(error, ResponseError) and not str(error).startswith("WRONGTYPE"):
            raise
        raise ConfigurationError(
            f"the model card {streams.queue.card} cannot be read ({error}): a pool of another release may run, or "
            "somebody else wrote there; delete the key if it is not another pool's"
        ) from error


def _tidy(streams: Streams) -> None:
    """Remove what workers left that are gone for good; trouble with that is no reason not to serve."""
    try:
        streams.prepare()
        forget_old_workers(streams)
    except (RedisError, OSError) as error:
        logger.warning("traces of old workers could not be removed: %s", redacted(error))


def limit_cpu(task: TaskName, settings: WorkerSettings, slot: int) -> None:
    """Keep the model to its threads, and this process to cores of its own where the settings want that."""
    # Read by the tokenizers' thread pool, which knows nothing of the model's threads.
    os.environ["RAYON_NUM_THREADS"] = str(settings.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if settings.threads > 1 else "false"
    cores = cores_for_slot(task, slot, settings.processes, settings.threads, sorted(os.sched_getaffinity(0)))
    if settings.pin and cores:
        os.sched_setaffinity(0, cores)


def _handle_signals(stopping: StopFlag, serving: StopFlag) -> None:
    """SIGTERM finishes the batch in hand; a second request leaves at once. Ctrl-C is the parent's to handle."""
    requests = SignalCount()

    def stop(number: int, _frame: FrameType | None) -> None:
        requests.note(number)
        if requests.count > 1:
            os._exit(1)
        stopping.set()
        if not serving.is_set():
            sys.exit(0)  # there is no batch to finish while the model loads

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave(stopping: StopFlag, serving: StopFlag, hangs: bool) -> None:
    """Stop in order; at once if nothing is in hand yet, while a model loads for minutes, or nothing will ever end."""
    if hangs or not serving.is_set():
        os._exit(1)
    stopping.set()


def _parent_alive() -> bool:
    parent = multiprocessing.parent_process()
    return parent is None or parent.is_alive()
