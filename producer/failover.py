"""Connections that follow a failover: they leave a master that was demoted, and ask Sentinels for the new one."""

from collections.abc import Mapping
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection as AsyncAbstractConnection
from redis.connection import AbstractConnection
from redis.exceptions import ReadOnlyError, ResponseError

from producer.sentinel import AsyncMasterFinder, MasterFinder


class _Leaving(AbstractConnection):
    """Closes when Redis says that it is read-only: a new connection may reach the new master, by DNS or by proxy."""

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)
        except ResponseError as error:
            if _is_read_only(error):
                self.disconnect()  # type: ignore[no-untyped-call]
            raise


class _Following(redis.Connection):
    """Asks for the master whenever it connects; a master that was demoted is a connection that broke."""

    def __init__(self, *, finder: MasterFinder, **options: Any) -> None:
        self._finder = finder
        super().__init__(**options)  # type: ignore[no-untyped-call]

    def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        if not self.is_connected:
            self.host, self.port = self._finder.find()
        # Another try begins with asking again, in the retries around this one.
        super().connect_check_health(check_health, retry_socket_connect=False)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)
        except ResponseError as error:
            if not _is_read_only(error):
                raise
            self.disconnect()  # type: ignore[no-untyped-call]
            raise redis.exceptions.ConnectionError(_DEMOTED) from error


class _AsyncLeaving(AsyncAbstractConnection):
    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except ResponseError as error:
            if _is_read_only(error):
                await self.disconnect(nowait=True)
            raise


class _AsyncFollowing(redis.asyncio.Connection):
    def __init__(self, *, finder: AsyncMasterFinder, **options: Any) -> None:
        self._finder = finder
        super().__init__(**options)

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        if not self.is_connected:
            self.host, self.port = await self._finder.find()
        await super().connect_check_health(check_health, retry_socket_connect=False)

    async def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().read_response(*args, **kwargs)
        except ResponseError as error:
            if not _is_read_only(error):
                raise
            await self.disconnect(nowait=True)
            raise redis.exceptions.ConnectionError(_DEMOTED) from error


_DEMOTED = "the Redis that was master is read-only now"


def _is_read_only(error: ResponseError) -> bool:
    """Before Redis 7, what a script's command was refused for stands inside an error of the script."""
    return isinstance(error, ReadOnlyError) or "-READONLY " in str(error)


def _with(mixin: type, plain: type) -> Any:
    return type(f"{mixin.__name__.lstrip('_')}{plain.__name__}", (mixin, plain), {})


_PLAIN = {"tcp": redis.Connection, "tls": redis.SSLConnection, "unix": redis.UnixDomainSocketConnection}
_ASYNC_PLAIN = {
    "tcp": redis.asyncio.Connection,
    "tls": redis.asyncio.SSLConnection,
    "unix": redis.asyncio.UnixDomainSocketConnection,
}

LEAVING: Mapping[str, Any] = {transport: _with(_Leaving, plain) for transport, plain in _PLAIN.items()}
FOLLOWING: Mapping[str, Any] = {transport: _with(_Following, _PLAIN[transport]) for transport in ("tcp", "tls")}
ASYNC_LEAVING: Mapping[str, Any] = {transport: _with(_AsyncLeaving, plain) for transport, plain in _ASYNC_PLAIN.items()}
ASYNC_FOLLOWING: Mapping[str, Any] = {
    transport: _with(_AsyncFollowing, _ASYNC_PLAIN[transport]) for transport in ("tcp", "tls")
}
