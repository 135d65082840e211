"""Opens Redis clients with our timeouts, and maps redis-py's errors to ours, here and nowhere else."""

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)
from redis.retry import Retry

from producer.address import Transport, check_files, read_address, url_errors
from producer.errors import RedisUnavailable, redacted
from producer.exchange import WaitingPool, ask
from producer.failover import ASYNC_FOLLOWING, ASYNC_LEAVING, FOLLOWING, LEAVING
from producer.sentinel import AsyncMasterFinder, MasterFinder
from producer.settings import SharedSettings
from producer.wire.scripts import ScriptCall

LONGEST_S = 5.0
SHORTEST_S = 0.25
_TIMEOUTS_S = (SHORTEST_S, 0.5, 1.0, 2.0, LONGEST_S)

STATE_S = 0.5
"""What a call that is out of time may take to say how its queue stands."""

_MOST_CONNECTIONS = 50
"""Of one client. Callers beyond wait their turn: commands are short, and hundreds of calls at once are usual."""

_RETRIED = (redis.exceptions.ConnectionError,)
_RETRIES = 2
"""A connection that breaks is made again: look-ups read, and the enqueue script is a no-op the second time. A server
that does not answer is not asked again: the time is the caller's."""

_KEEPALIVE = {
    getattr(socket, name): value
    for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if hasattr(socket, name)
}
"""Notice within half a minute that the other side is gone without a word: a subscriber never sends."""

_CLOSED = re.compile("reset by peer|closed by server|EOF occurred|broken pipe|certificate.required", re.IGNORECASE)
_TLS_HINT = (
    " (it closes connections: if its port speaks TLS, write rediss://, with ssl_certfile and ssl_keyfile if it asks "
    "for a client certificate)"
)
"""Servers say in many ways, or not at all, that they wanted TLS or a certificate."""

_NOBODY = re.compile("refused|name or service|nodename|no address|no such file", re.IGNORECASE)
_PLACE_HINT = " (is it running, and is REDIS_URL right?)"


class Clients:
    """One sync client for each of a few socket timeouts, so that no command outlasts its call; none is connected yet.

    Raises:
        ConfigurationError: the URL cannot be read.
    """

    def __init__(self, settings: SharedSettings) -> None:
        self._by_timeout_s = {timeout_s: connect(settings, timeout_s=timeout_s) for timeout_s in _TIMEOUTS_S}

    @property
    def usual(self) -> redis.Redis:
        """The client for what has no deadline of its own."""
        return self._by_timeout_s[LONGEST_S]

    def within(self, left_s: float) -> redis.Redis:
        """The client that gives up within so many seconds (or in a quarter of one, if that is more)."""
        for timeout_s in reversed(_TIMEOUTS_S):
            if timeout_s <= left_s:
                return self._by_timeout_s[timeout_s]
        return self._by_timeout_s[SHORTEST_S]

    def close(self) -> None:
        for client in self._by_timeout_s.values():
            client.close()


class ScriptsMissing(NoPermissionError):
    """Redis does not know a script of ours, and its user may not load it."""


def connect(settings: SharedSettings, *, timeout_s: float = LONGEST_S) -> redis.Redis:
    """Make a client for the Redis of the settings, or for the master that its Sentinels name; nothing is connected yet.

    Raises:
        ConfigurationError: the URL cannot be read.
    """
    address = read_address(settings)
    options = {
        **_options(timeout_s, address.transport),
        "retry": Retry(_backoff(), _RETRIES, _RETRIED),
        **address.options,
    }
    classes = LEAVING
    if address.sentinels:
        classes, options = FOLLOWING, {**options, "finder": MasterFinder(address.sentinels, timeout_s)}
    with url_errors():
        pool = WaitingPool(
            most=options.pop("max_connections", _MOST_CONNECTIONS),
            timeout_s=timeout_s,
            connection_class=classes[address.transport],
            **options,
        )
        pool.connection_class(**pool.connection_kwargs)  # an option that does not exist is refused here and now
        check_files(address)
        return redis.Redis.from_pool(pool)


def connect_async(settings: SharedSettings) -> redis.asyncio.Redis:
    """The same for asyncio, where each call brings its own timeout."""
    address = read_address(settings)
    options = {
        **_options(LONGEST_S, address.transport),
        "retry": AsyncRetry(_backoff(), _RETRIES, _RETRIED),
        **address.options,
    }
    classes = ASYNC_LEAVING
    if address.sentinels:
        classes, options = ASYNC_FOLLOWING, {**options, "finder": AsyncMasterFinder(address.sentinels)}
    with url_errors():
        pool = redis.asyncio.BlockingConnectionPool(
            options.pop("max_connections", _MOST_CONNECTIONS),
            LONGEST_S,
            connection_class=classes[address.transport],
            **options,
        )
        pool.connection_class(**pool.connection_kwargs)
        check_files(address)
        return redis.asyncio.Redis.from_pool(pool)


def run_script(client: redis.Redis, call: ScriptCall) -> Any:
    """Call a script by its hash; after a restart or a flush of the script cache, load it first."""
    try:
        return ask(client, *call.command)
    except NoScriptError:
        with _loading_errors():
            client.script_load(call.script.source.decode())
        return ask(client, *call.command)


async def run_script_async(client: redis.asyncio.Redis, call: ScriptCall) -> Any:
    """The same for asyncio."""
    try:
        return await client.execute_command(*call.command)
    except NoScriptError:
        with _loading_errors():
            await client.script_load(call.script.source.decode())
        return await client.execute_command(*call.command)


def first_of(replies: list[Any]) -> Any:
    """The reply to a pipeline's first command; what the others came to is not worth an error."""
    if isinstance(replies[0], Exception):
        raise replies[0]
    return replies[0]


def is_full(error: ResponseError) -> bool:
    """Whether Redis has no memory left. Before Redis 7, what a script's command was refused for stands in its text."""
    return isinstance(error, OutOfMemoryError) or "-OOM " in str(error)


class redis_errors:
    """Map what redis-py raises inside the block to `RedisUnavailable`.

    Raises:
        RedisUnavailable: code `redis_refused` if Redis answers with an error (password, permission, memory,
            read-only), `redis_unavailable` if it does not answer or lacks our scripts.
    """

    # A class, since every command passes here: a generator would cost a microsecond more.
    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, ScriptsMissing):
            raise RedisUnavailable(str(error)) from error
        if isinstance(error, AuthenticationError | ResponseError):
            raise RedisUnavailable(f"{_lead(error)}: {redacted(error)}", code="redis_refused") from error
        if isinstance(error, RedisError | OSError):
            text = redacted(error) or "no answer in time"
            hint = _TLS_HINT if _CLOSED.search(text) else _PLACE_HINT if _NOBODY.search(text) else ""
            raise RedisUnavailable(f"Redis cannot be reached: {text}{hint}") from error


def _lead(error: RedisError) -> str:
    """What a refusal comes to, in a few words."""
    text = str(error)
    if isinstance(error, NoPermissionError) or "ACL failure in script" in text or "NOPERM" in text:
        return "the user of Redis (HEADRACE_REDIS_USER) may not do this, or not with these keys"
    if text.startswith(("NOAUTH", "HELLO must be called", "Authentication required")):
        return "Redis asks for a user and a password (HEADRACE_REDIS_USER, HEADRACE_REDIS_PASSWORD_FILE)"
    if isinstance(error, AuthenticationError):
        return "Redis refuses the user or the password"
    if isinstance(error, ResponseError) and is_full(error):
        return "Redis is full (raise maxmemory, or let it evict cached results: volatile-lfu)"
    return "Redis answers with an error"


@contextmanager
def _loading_errors() -> Iterator[None]:
    try:
        yield
    except NoPermissionError as error:
        raise ScriptsMissing(
            "Headrace's scripts are not loaded in Redis and this user may not load them: a pool loads them when it "
            "starts"
        ) from error


def _options(timeout_s: float, transport: Transport) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "decode_responses": False,
        **({} if transport == "unix" else {"socket_keepalive": True, "socket_keepalive_options": _KEEPALIVE}),
    }


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(base=0.05, cap=0.5)
