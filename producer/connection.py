"""Opens Redis clients with our timeouts, and maps redis-py's errors to ours, here and nowhere else."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from producer.errors import ConfigurationError, RedisUnavailable
from producer.wire.scripts import ScriptCall

LONGEST_S = 5.0
SHORTEST_S = 0.25
_TIMEOUTS_S = (SHORTEST_S, 0.5, 1.0, 2.0, LONGEST_S)

STATE_S = 0.5
"""What a call that is out of time may take to say how its queue stands."""

_RETRIES = 2
"""A connection that breaks is made again: look-ups read, and the enqueue script is a no-op the second time. A server
that does not answer is not asked again: the time is the caller's."""

_KEEPALIVE = {
    getattr(socket, name): value
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}
"""Notice within half a minute that the other side is gone without a word: a subscriber never sends."""


class Clients:
    """One sync client for each of a few socket timeouts, so that no command outlasts its call; none is connected yet.

    Raises:
        ConfigurationError: the URL cannot be read.
    """

    def __init__(self, url: str) -> None:
        self._by_timeout_s = {timeout_s: connect(url, timeout_s=timeout_s) for timeout_s in _TIMEOUTS_S}

    @property
    def usual(self) -> redis.Redis:
        """The client for what has no deadline of its own."""
        return self._by_timeout_s[LONGEST_S]

    def within(self, left_s: float) -> redis.Redis:
        """The client that gives up within so many seconds (or in a quarter of one, if that is more)."""
        return self._by_timeout_s[max((t for t in _TIMEOUTS_S if t <= left_s), default=SHORTEST_S)]

    def close(self) -> None:
        for client in self._by_timeout_s.values():
            client.close()


def connect(url: str, *, timeout_s: float = LONGEST_S) -> redis.Redis:
    """Make a client; nothing is connected yet.

    Raises:
        ConfigurationError: the URL cannot be read.
    """
    with _url_errors():
        retry = Retry(_backoff(), _RETRIES, supported_errors=(redis.exceptions.ConnectionError,))
        return redis.Redis.from_url(url, retry=retry, **_options(timeout_s))


def connect_async(url: str) -> redis.asyncio.Redis:
    """The same for asyncio, where each call brings its own timeout."""
    with _url_errors():
        retry = AsyncRetry(_backoff(), _RETRIES, supported_errors=(redis.exceptions.ConnectionError,))
        client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(url, retry=retry, **_options(LONGEST_S))
        return client


def run_script(client: redis.Redis, call: ScriptCall) -> Any:
    """Call a script by its hash; after a restart or a flush of the script cache, load it first."""
    try:
        return client.execute_command(*call.command)
    except NoScriptError:
        client.script_load(call.script.source.decode())
        return client.execute_command(*call.command)


@contextmanager
def redis_errors() -> Iterator[None]:
    """Map what redis-py raises inside to `RedisUnavailable`.

    Raises:
        RedisUnavailable: code `redis_refused` if Redis answers with an error (password, permission, memory,
            read-only), `redis_unavailable` if it does not answer.
    """
    try:
        yield
    except (AuthenticationError, NoPermissionError) as error:
        raise RedisUnavailable(f"Redis refuses the user or the password: {error}", code="redis_refused") from error
    except ResponseError as error:
        raise RedisUnavailable(f"Redis answers with an error: {error}", code="redis_refused") from error
    except (RedisError, OSError) as error:
        raise RedisUnavailable(f"Redis cannot be reached: {error}") from error


@contextmanager
def _url_errors() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, AttributeError):
        # The URL may hold a password, and so may the error's text: neither is repeated.
        raise ConfigurationError(
            "REDIS_URL (--redis-url) is not a Redis URL: write redis://[user:password@]host:port/db, rediss://… or "
            "unix://…, with special characters of the password percent-encoded",
            code="bad_redis_url",
        ) from None


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        "socket_keepalive_options": _KEEPALIVE,
        "decode_responses": False,
    }


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(base=0.05, cap=0.5)
