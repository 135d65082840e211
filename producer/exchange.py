"""The short way to Redis: a pool whose callers wait their turn, and one command on one of its connections.

redis-py's blocking pool and its `execute_command` cost as much as the round trip itself: queues built of conditions,
hooks for metrics, tables of callbacks. Connections, their retries and the checks of their state are redis-py's own.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import redis
from hiredis import pack_command
from redis.exceptions import ConnectionError, ResponseError, TimeoutError


class WaitingPool(redis.ConnectionPool):
    """At most so many connections: a caller beyond waits for one, so long. Safe across threads and forks."""

    def __init__(self, *, most: int, timeout_s: float, **options: Any) -> None:
        self._timeout_s = timeout_s
        super().__init__(max_connections=most, **options)

    def reset(self) -> None:
        """Begin with no connections: at the start, and in a child of fork, where a lock may be held by nobody."""
        self._lock = threading.RLock()
        self._returned = threading.Condition(self._lock)
        self._waiting = 0
        super().reset()

    def get_connection(self, *_command: Any, **_options: Any) -> Any:
        """Take a connection that is ready: connected, and with nothing left to read.

        Raises:
            redis.exceptions.ConnectionError: there is none in time, or it cannot be made.
        """
        self._checkpid()
        with self._lock:
            idle = self._available_connections
            connection: Any = idle.pop() if idle else self._new_or_returned()
            self._in_use_connections.add(connection)
        try:
            if not connection.is_connected:
                connection.connect()
            if not self._is_ready(connection):  # closed by the server, or somebody was interrupted
                connection.disconnect()
                connection.connect()
                if not self._is_ready(connection):
                    raise ConnectionError("Connection not ready")
        except BaseException:
            self.release(connection)
            raise
        return connection

    def release(self, connection: Any) -> None:
        """Give a connection back. One from before a fork is its parent's, and forgotten."""
        self._checkpid()
        with self._lock:
            if connection not in self._in_use_connections:
                return
            self._in_use_connections.remove(connection)
            if connection.should_reconnect():
                connection.disconnect()
            self._available_connections.append(connection)
            if self._waiting:
                self._returned.notify()

    def _new_or_returned(self) -> Any:
        """Make a connection, or wait for one where there are as many as may be; the lock is held."""
        deadline = time.monotonic() + self._timeout_s
        while not self._available_connections:
            if self._created_connections < self.max_connections:
                return self.make_connection()
            self._waiting += 1
            try:
                woken = self._returned.wait(deadline - time.monotonic())
                # Woken in its last moment, it counts as late, and nobody else is woken for what came back.
                if not woken and not self._available_connections:
                    raise ConnectionError("No connection available.")
            finally:
                self._waiting -= 1
        return self._available_connections.pop()

    def _is_ready(self, connection: Any) -> bool:
        try:
            return not connection.can_read() or bool(self.maint_notifications_enabled())  # type: ignore[no-untyped-call]
        except (ConnectionError, TimeoutError, OSError):
            return False


def ask(client: redis.Redis, *command: Any) -> Any:
    """Send one command and return its reply as it came; a broken connection is made again as the client's retries say.

    Raises:
        redis.exceptions.RedisError: like `client.execute_command`.
    """

    def exchange(connection: Any) -> Any:
        connection.send_packed_command([pack_command(command)])
        return connection.read_response()

    def with_retries(connection: Any) -> Any:
        return connection.retry.call_with_retry(lambda: exchange(connection), lambda _error: connection.disconnect())

    return _exchanged(client, with_retries)


def ask_all(client: redis.Redis, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Send commands at once, and return their replies as they came; errors are among them, not raised.

    Never sent again, whatever the client's retries: a reading that is repeated strands what the first one was given.

    Raises:
        redis.exceptions.RedisError: Redis does not answer, or is read-only.
    """

    def exchange(connection: Any) -> list[Any]:
        connection.send_packed_command([b"".join([pack_command(command) for command in commands])])
        return [_reply(connection) for _ in commands]

    return list(_exchanged(client, exchange))


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        if not connection.is_connected:  # it has left a master that was demoted: no other reply will come
            raise
        return error


def raise_first(replies: Iterable[Any]) -> None:
    """Raise the first error among replies."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply


def _exchanged(client: redis.Redis, exchange: Callable[[Any], Any]) -> Any:
    pool = client.connection_pool
    connection = pool.get_connection()
    try:
        return exchange(connection)
    except ResponseError:
        raise
    except BaseException:
        connection.disconnect()  # whoever comes next must not read this call's reply
        raise
    finally:
        pool.release(connection)
