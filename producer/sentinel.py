"""Asks Sentinels where the master is, without spending a caller's time on those that do not answer."""

import asyncio
from collections.abc import Mapping
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from producer.address import Endpoint, Sentinels
from producer.errors import redacted

_LONGEST_S = 0.5
_SHORTEST_S = 0.1

_Answer = Endpoint | RedisError | OSError | None
"""Where the master is; or why the Sentinel does not say; or None if it does not know the service."""

_SYNC: Mapping[str, Any] = {"tcp": redis.Connection, "tls": redis.SSLConnection}
_ASYNC: Mapping[str, Any] = {"tcp": redis.asyncio.Connection, "tls": redis.asyncio.SSLConnection}


class MasterFinder:
    """Asks one Sentinel after the other, beginning with the one that answered last; together about `timeout_s`.

    Every question is a connection of its own: a Sentinel is asked when a connection to Redis is made, which is rare.
    """

    def __init__(self, sentinels: Sentinels, timeout_s: float) -> None:
        self._sentinels = sentinels
        self._order = sentinels.hosts
        self.each_s = min(_LONGEST_S, max(_SHORTEST_S, timeout_s / len(sentinels.hosts)))

    def find(self) -> Endpoint:
        """Return the master's host and port.

        Raises:
            RedisError: no Sentinel names one; the text says what each of them answered.
        """
        answers: dict[Endpoint, _Answer] = {}
        for endpoint in self._order:
            answer = answers[endpoint] = self._ask(endpoint)
            if isinstance(answer, tuple):
                self._order = (endpoint, *(other for other in self._sentinels.hosts if other != endpoint))
                return answer
        raise _nobody_knows(self._sentinels.service, answers)

    def _ask(self, endpoint: Endpoint) -> _Answer:
        connection = _SYNC[self._sentinels.transport](**_options(self._sentinels, endpoint, self.each_s))
        try:
            connection.connect()
            connection.send_command(*_question(self._sentinels))
            return _read(connection.read_response())
        except (RedisError, OSError) as error:
            return error
        finally:
            connection.disconnect()


class AsyncMasterFinder:
    """Asks all Sentinels at once and takes the first that answers."""

    def __init__(self, sentinels: Sentinels) -> None:
        self._sentinels = sentinels

    async def find(self) -> Endpoint:
        """Like `MasterFinder.find`."""
        answers: dict[Endpoint, _Answer] = {}
        asking = [asyncio.create_task(self._ask(endpoint)) for endpoint in self._sentinels.hosts]
        try:
            for answered in asyncio.as_completed(asking):
                endpoint, answer = await answered
                if isinstance(answer, tuple):
                    return answer
                answers[endpoint] = answer
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        raise _nobody_knows(self._sentinels.service, answers)

    async def _ask(self, endpoint: Endpoint) -> tuple[Endpoint, _Answer]:
        connection = _ASYNC[self._sentinels.transport](**_options(self._sentinels, endpoint, _LONGEST_S))
        try:
            await connection.connect()
            await connection.send_command(*_question(self._sentinels))
            return endpoint, _read(await connection.read_response())
        except (RedisError, OSError) as error:
            return endpoint, error
        finally:
            await connection.disconnect(nowait=True)


def _options(sentinels: Sentinels, endpoint: Endpoint, timeout_s: float) -> dict[str, Any]:
    """Keywords of a connection that says no more than it must, and tries once."""
    host, port = endpoint
    return {
        **sentinels.options,
        "host": host,
        "port": port,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "decode_responses": True,
        "protocol": 2,
        "driver_info": None,
    }


def _question(sentinels: Sentinels) -> tuple[str, ...]:
    return "SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinels.service


def _read(reply: Any) -> Endpoint | None:
    return (str(reply[0]), int(reply[1])) if reply else None


def _told(answer: _Answer) -> str:
    return redacted(answer) if isinstance(answer, Exception) else "no such service"


def _nobody_knows(service: str, answers: Mapping[Endpoint, _Answer]) -> RedisError:
    """The error when no Sentinel names a master: one that is not tried again at once if a Sentinel was silent."""
    told = "; ".join(f"{host}:{port}: {_told(answer)}" for (host, port), answer in answers.items())
    text = f"no Sentinel names a master for {service!r} ({told})"
    if any(isinstance(answer, AuthenticationError | NoPermissionError) for answer in answers.values()):
        return AuthenticationError(text)
    if any(isinstance(answer, redis.exceptions.TimeoutError) for answer in answers.values()):
        return redis.exceptions.TimeoutError(text)
    return redis.exceptions.ConnectionError(text)
