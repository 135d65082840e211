"""Dead letters for operators: list them, look at one, put their rows on the bulk lane again, or delete them."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from types import TracebackType
from typing import Any, Self

import redis

from producer.connection import Clients, redis_errors
from producer.errors import InvalidRequest
from producer.requests import as_list
from producer.retrying import Retry, RetryReport
from producer.settings import ProducerSettings, load
from producer.wire.keys import Kind, QueueKeys
from producer.wire.letters import decode_letter
from producer.wire.messages import DeadLetter
from producer.wire.models import TASKS, TaskName, resolve

_LETTERS_PER_PAGE = 100
"""At most 13 MB as workers write them (`letters.MAX_PAYLOAD_BYTES`)."""

_IDS_PER_CALL = 1000
_LETTER_ID = re.compile(r"(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})")
_LARGEST_PART = 2**64 - 1

Letters = list[DeadLetter]  # inside the class, `list` is a method


class DeadLetters:
    """The dead letters of the two queues that the settings name, for operators and their tools.

    It connects at the first call. Close it, or use `with`. Every call can raise `RedisUnavailable`, and
    `InvalidRequest` for a task or an id that cannot be.
    """

    def __init__(self, settings: ProducerSettings) -> None:
        self.settings = settings
        self.queues: dict[TaskName, QueueKeys] = {
            "embed": QueueKeys.of(resolve("embed", settings.embed_model), settings.namespace),
            "rerank": QueueKeys.of(resolve("rerank", settings.rerank_model), settings.namespace),
        }
        self._clients = Clients(settings)

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:
        """Open the queues of the Redis at `url`; keywords are the fields of `ProducerSettings`.

        Raises:
            ConfigurationError: the URL, a model's name or a value cannot work.
        """
        return cls(ProducerSettings(redis_url=url, **settings))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Open the queues that the environment variables of the settings table name."""
        return cls(load(ProducerSettings, os.environ if environ is None else environ))

    def count(self, task: TaskName) -> int:
        """How many letters there are."""
        key = self._queue(task).dead
        return int(self._ask(lambda client: client.xlen(key)))

    def list(self, task: TaskName, *, limit: int = 100, newest_first: bool = True) -> Letters:
        """Read up to `limit` letters, with their jobs."""
        if type(limit) is not int or limit < 1:
            raise InvalidRequest(f"limit must be a whole number of 1 or more, not {limit!r}")
        pages = self._pages(self._queue(task), newest_first, min(limit, _LETTERS_PER_PAGE))
        return list(islice(chain.from_iterable(pages), limit))

    def iterate(self, task: TaskName, *, newest_first: bool = True) -> Iterator[DeadLetter]:
        """Read all letters that are there now, however many, holding one page of them in memory."""
        return chain.from_iterable(self._pages(self._queue(task), newest_first, _LETTERS_PER_PAGE))

    def get(self, task: TaskName, letter_id: str) -> DeadLetter:
        """Read one letter.

        Raises:
            InvalidRequest: code `bad_letter_id` if it is no id, `no_such_letter` if there is no letter of that id.
        """
        queue = self._queue(task)
        ((_, letter),) = self._find(queue, _checked_ids([letter_id]))
        if letter is None:
            raise InvalidRequest(
                f"{queue.task}:{queue.tag} has no dead letter {letter_id}: it was retried, purged or trimmed, or the "
                "model is another",
                code="no_such_letter",
            )
        return letter

    def retry(self, task: TaskName, letter_ids: Iterable[str]) -> RetryReport:
        """Put the rows of these letters on the bulk lane again, for up to 24 hours, and delete the letters.

        A letter is deleted only after the lane has all its rows; whatever fails, call again. Results are not waited
        for: a caller who asks for the rows finds them in the cache.
        """
        queue, ids = self._queue(task), _checked_ids(letter_ids)
        retry, missing = Retry(queue, self.settings, self._ask), []
        for first in range(0, len(ids), _LETTERS_PER_PAGE):
            found = list(self._find(queue, ids[first : first + _LETTERS_PER_PAGE]))
            missing += [letter_id for letter_id, letter in found if letter is None]
            if not retry.lane_full:
                retry.take([letter for _, letter in found if letter])
        return retry.report(missing)

    def retry_all(self, task: TaskName) -> RetryReport:
        """The same for all letters that are there now, oldest first; those that die meanwhile wait for the next."""
        queue = self._queue(task)
        retry = Retry(queue, self.settings, self._ask)
        for letters in self._pages(queue, newest_first=False, size=_LETTERS_PER_PAGE):
            retry.take(letters)
            if retry.lane_full:
                break
        return retry.report([])

    def purge(self, task: TaskName, letter_ids: Iterable[str]) -> int:
        """Delete these letters; return how many of them were there."""
        key, ids = self._queue(task).dead, _checked_ids(letter_ids)

        def delete(client: redis.Redis) -> int:
            chunks = (ids[first : first + _IDS_PER_CALL] for first in range(0, len(ids), _IDS_PER_CALL))
            return sum(int(client.xdel(key, *chunk)) for chunk in chunks)

        return int(self._ask(delete))

    def purge_all(self, task: TaskName) -> int:
        """Delete all letters; return how many there were. The stream stays, so that no id is ever given twice."""
        key = self._queue(task).dead
        return int(self._ask(lambda client: client.xtrim(key, maxlen=0, approximate=False)))

    def now_ms(self) -> int:
        """Redis server time, which the letters' times are on."""
        seconds, microseconds = self._ask(lambda client: client.time())
        return int(seconds) * 1000 + int(microseconds) // 1000

    def close(self) -> None:
        """Close the connections."""
        self._clients.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, command: Callable[[redis.Redis], Any]) -> Any:
        with redis_errors():
            return command(self._clients.usual)

    def _queue(self, task: TaskName) -> QueueKeys:
        if task not in TASKS:
            raise InvalidRequest(f"the task must be 'embed' or 'rerank', not {task!r}")
        return self.queues[task]

    def _pages(self, queue: QueueKeys, newest_first: bool, size: int) -> Iterator[Letters]:
        """Read by the page; the newest letter at the start bounds it, so that a retry never meets what it made."""
        newest = self._ask(lambda client: client.xrevrange(queue.dead, count=1))
        low, high = "-", newest[0][0].decode() if newest else ""

        def read(client: redis.Redis) -> Any:
            if newest_first:
                return client.xrevrange(queue.dead, max=high, min=low, count=size)
            return client.xrange(queue.dead, min=low, max=high, count=size)

        while high and (found := self._ask(read)):
            yield [_letter(queue, *entry) for entry in found]
            edge = "(" + found[-1][0].decode()
            low, high = (low, edge) if newest_first else (edge, high)

    def _find(self, queue: QueueKeys, ids: Sequence[str]) -> Iterator[tuple[str, DeadLetter | None]]:
        """Read letters by their ids."""

        def read(client: redis.Redis) -> Any:
            with client.pipeline(transaction=False) as pipeline:
                for letter_id in ids:
                    pipeline.xrange(queue.dead, min=letter_id, max=letter_id)
                return pipeline.execute()

        for letter_id, found in zip(ids, self._ask(read), strict=True):
            yield letter_id, _letter(queue, *found[0]) if found else None


def _letter(queue: QueueKeys, letter_id: bytes, fields: Mapping[bytes, bytes]) -> DeadLetter:
    """Decode a letter; one of another task's rows cannot be retried either, its pool would only refuse it again."""
    letter = decode_letter(letter_id, fields)
    if letter.job and (letter.job.header.kind is Kind.PAIR) != (queue.task == "rerank"):
        kind = letter.job.header.kind
        return replace(letter, unreadable=f"rows of kind {kind} are not for {queue.task} pools")
    return letter


def _checked_ids(letter_ids: Iterable[str]) -> list[str]:
    """The ids, each once; refuses what is none, before anything is sent."""
    ids = as_list(letter_ids, "letter_ids")
    for letter_id in ids:
        match = _LETTER_ID.fullmatch(letter_id) if isinstance(letter_id, str) else None
        if not match or max(map(int, match.groups())) > _LARGEST_PART:
            raise InvalidRequest(
                f"{letter_id!r} is not the id of a dead letter: they look like 1763900000000-0", code="bad_letter_id"
            )
    return list(dict.fromkeys(ids))
