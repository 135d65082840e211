"""Opens Redis clients with our timeouts, and maps redis-py's errors to ours, here and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.retry import Retry

from producer.errors import ConfigurationError, RedisUnavailable

_SOCKET_TIMEOUT_S = 5.0
_RETRIES = 2
"""Every producer command may be repeated: look-ups read, and the enqueue script is a no-op the second time."""


def connect(url: str, *, timeout_s: float = 15.0) -> redis.Redis:
    """Make a client; nothing is connected yet.

    Raises:
        ConfigurationError: the URL cannot be read.
    """
    with _url_errors():
        return redis.Redis.from_url(url, retry=Retry(_backoff(), _RETRIES), **_options(timeout_s))


def connect_async(url: str, *, timeout_s: float = 15.0) -> redis.asyncio.Redis:
    """The same for asyncio."""
    with _url_errors():
        client: redis.asyncio.Redis = redis.asyncio.Redis.from_url(
            url, retry=AsyncRetry(_backoff(), _RETRIES), **_options(timeout_s)
        )
        return client


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
    # All attempts together stay within the time that a call has.
    timeout_s = min(timeout_s / (1 + _RETRIES), _SOCKET_TIMEOUT_S)
    return {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "decode_responses": False}


def _backoff() -> ExponentialWithJitterBackoff:
    return ExponentialWithJitterBackoff(base=0.05, cap=0.5)
