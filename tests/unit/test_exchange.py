"""The pool whose callers wait their turn, and one command on a connection of it: with connections made of nothing."""

import os
import threading
from typing import Any

import hiredis
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from producer.exchange import WaitingPool, ask, ask_all

PATIENCE_S = 10.0


class Line:
    """A connection that answers each command with its words; `log` holds what happened to it."""

    made: list["Line"]

    def __init__(self, **_options: Any) -> None:
        self.pid = os.getpid()
        self.retry = Retry(NoBackoff(), 1, (redis.ConnectionError,))
        self.is_connected = False
        self.unread: list[Any] = []
        self.log: list[str] = []
        self.sent = 0
        self.leaves = False
        """Whether it closes at an error, as one does that is told that its server is read-only."""
        self.errors: list[BaseException] = []
        self.made.append(self)

    def connect(self) -> None:
        self.is_connected = True
        self.log.append("connect")

    def disconnect(self, *_: Any) -> None:
        self.is_connected = False
        self.unread.clear()
        self.log.append("disconnect")

    def can_read(self) -> bool:
        return bool(self.unread)

    def should_reconnect(self) -> bool:
        return False

    def send_packed_command(self, packed: list[bytes]) -> None:
        self.is_connected = True
        self.sent += 1
        reader = hiredis.Reader()
        reader.feed(b"".join(packed))
        while (command := reader.gets()) is not False:
            self.unread.append(tuple(part.decode() for part in command))

    def read_response(self) -> Any:
        if not self.unread:
            raise redis.ConnectionError("closed")
        reply = self.unread.pop(0)
        if self.errors:
            self.is_connected = not self.leaves
            raise self.errors.pop(0)
        return reply


def make_pool(most: int = 2, timeout_s: float = PATIENCE_S) -> WaitingPool:
    return WaitingPool(most=most, timeout_s=timeout_s, connection_class=Line)


@pytest.fixture(autouse=True)
def made() -> list[Line]:
    Line.made = []
    return Line.made


@pytest.fixture
def client(made: list[Line]) -> redis.Redis:
    return redis.Redis.from_pool(make_pool())


def test_a_connection_is_used_again_and_the_last_one_first(made: list[Line]) -> None:
    pool = make_pool()
    first, second = pool.get_connection(), pool.get_connection()
    pool.release(first)
    pool.release(second)

    assert pool.get_connection() is second
    assert [line.log for line in made] == [["connect"], ["connect"]]


def test_a_caller_beyond_the_limit_waits_for_a_connection_that_comes_back() -> None:
    pool = make_pool(most=1)
    held = pool.get_connection()
    got: list[Any] = []
    waiting = threading.Thread(target=lambda: got.append(pool.get_connection()))
    waiting.start()

    pool.release(held)

    waiting.join(PATIENCE_S)
    assert got == [held]


def test_a_caller_beyond_the_limit_gives_up_in_time() -> None:
    pool = make_pool(most=1, timeout_s=0.01)
    held = pool.get_connection()

    with pytest.raises(redis.ConnectionError, match="No connection available"):
        pool.get_connection()

    pool.release(held)
    assert pool.get_connection() is held


def test_a_connection_that_comes_back_in_the_last_moment_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives it back wakes one caller, who may be late by then; the others would wait beside it."""
    pool = make_pool(most=1)
    held = pool.get_connection()

    def late(_timeout_s: float) -> bool:
        pool.release(held)
        return False

    monkeypatch.setattr(pool._returned, "wait", late)

    assert pool.get_connection() is held


def test_many_threads_share_few_connections(made: list[Line], client: redis.Redis) -> None:
    def work(number: int) -> None:
        for command in range(50):
            if ask(client, "ECHO", number, command) != ("ECHO", str(number), str(command)):
                wrong.append(number)

    wrong: list[int] = []
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert wrong == []
    assert len(made) <= 2


def test_a_connection_with_something_left_to_read_is_made_anew() -> None:
    pool = make_pool()
    connection = pool.get_connection()
    connection.unread.append("a late reply")
    pool.release(connection)

    assert pool.get_connection() is connection
    assert connection.log == ["connect", "disconnect", "connect"]


def test_a_child_of_fork_begins_with_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = make_pool()
    idle, used = pool.get_connection(), pool.get_connection()
    pool.release(idle)
    pool._lock.acquire()  # by a thread that the child does not have
    monkeypatch.setattr(os, "getpid", lambda: -1)
    got: list[Any] = []

    child = threading.Thread(target=lambda: got.append(pool.get_connection()), daemon=True)
    child.start()
    child.join(PATIENCE_S)

    assert got
    assert got[0] not in (idle, used)
    pool.release(used)
    assert pool.get_connection() is not used


def test_a_connection_that_breaks_is_tried_again_as_its_retries_say(made: list[Line], client: redis.Redis) -> None:
    ask(client, "PING")
    made[0].errors.append(redis.ConnectionError("reset"))

    assert ask(client, "PING") == ("PING",)
    assert "disconnect" in made[0].log

    made[0].errors += [redis.ConnectionError("reset")] * 2
    with pytest.raises(redis.ConnectionError, match="reset"):
        ask(client, "PING")
    assert ask(client, "PING") == ("PING",)


def test_a_refusal_leaves_the_connection_as_it_is(made: list[Line], client: redis.Redis) -> None:
    ask(client, "PING")
    made[0].errors.append(redis.ResponseError("WRONGTYPE"))

    with pytest.raises(redis.ResponseError):
        ask(client, "GET", "key")

    assert made[0].log == ["connect"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), redis.TimeoutError("slow")])
def test_whoever_comes_after_an_interruption_does_not_read_its_reply(
    made: list[Line], client: redis.Redis, interruption: BaseException
) -> None:
    ask(client, "PING")
    made[0].errors.append(interruption)

    with pytest.raises(type(interruption)):
        ask(client, "GET", "one")

    assert not made[0].is_connected
    assert ask(client, "GET", "two") == ("GET", "two")


def test_of_commands_sent_together_each_has_its_reply_or_its_error(made: list[Line], client: redis.Redis) -> None:
    ask(client, "PING")
    refusal = redis.ResponseError("WRONGTYPE")
    made[0].errors.append(refusal)
    sent = made[0].sent

    assert ask_all(client, [("GET", "one"), ("GET", "two")]) == [refusal, ("GET", "two")]

    assert made[0].sent == sent + 1
    assert made[0].log == ["connect"]


def test_commands_sent_together_are_not_repeated(made: list[Line], client: redis.Redis) -> None:
    """What a lost reading was given stays with the consumer: a second reading would be given other entries."""
    ask(client, "PING")
    made[0].errors.append(redis.ConnectionError("reset"))
    sent = made[0].sent

    with pytest.raises(redis.ConnectionError, match="reset"):
        ask_all(client, [("XREADGROUP",)])

    assert made[0].sent == sent + 1


def test_a_refusal_at_which_the_connection_leaves_its_server_is_the_one_that_is_told(
    made: list[Line], client: redis.Redis
) -> None:
    ask(client, "PING")
    made[0].errors.append(redis.exceptions.ReadOnlyError("READONLY"))
    made[0].leaves = True

    with pytest.raises(redis.exceptions.ReadOnlyError):
        ask_all(client, [("SET", "a", 1), ("SET", "b", 2)])
