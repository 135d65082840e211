"""What is asked of Sentinels and what becomes of their answers, against scripted ones on loopback."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis
from redis.exceptions import AuthenticationError, RedisError

from producer.address import Endpoint, Sentinels
from producer.sentinel import AsyncMasterFinder, MasterFinder
from tests.integration.harness.scripted import SILENT, UNKNOWN, ScriptedSentinel, names

MASTER = names(6390, "10.20.0.1")
Script = Callable[[bytes], ScriptedSentinel]


@pytest.fixture
def script() -> Iterator[Script]:
    """Starts a Sentinel that gives this answer."""
    with ExitStack() as running:
        yield lambda answer: running.enter_context(ScriptedSentinel([answer]))


def find_sync(*asked: ScriptedSentinel, **options: Any) -> Endpoint:
    return MasterFinder(_sentinels(*asked, **options), timeout_s=1.0).find()


def find_async(*asked: ScriptedSentinel, **options: Any) -> Endpoint:
    return asyncio.run(AsyncMasterFinder(_sentinels(*asked, **options)).find())


both = pytest.mark.parametrize("find", [find_sync, find_async], ids=["sync", "async"])


@both
def test_a_sentinel_is_asked_for_the_service_and_nothing_else(find: Callable[..., Endpoint], script: Script) -> None:
    sentinel = script(MASTER)

    assert find(sentinel) == ("10.20.0.1", 6390)
    (question,) = sentinel.heard
    assert question.split(b"\r\n")[2::2] == [b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", b"primary"]


@both
@pytest.mark.parametrize("other", [UNKNOWN, SILENT, b"-NOAUTH Authentication required.\r\n", b"-ERR unknown\r\n"])
def test_one_that_names_the_master_is_enough(find: Callable[..., Endpoint], script: Script, other: bytes) -> None:
    assert find(script(other), script(MASTER)) == ("10.20.0.1", 6390)


@both
@pytest.mark.parametrize(
    ("answers", "error", "reason"),
    [
        ([UNKNOWN], redis.exceptions.ConnectionError, "no such service"),
        ([UNKNOWN, b"-ERR unknown command 'SENTINEL'\r\n"], redis.exceptions.ConnectionError, "unknown command"),
        ([UNKNOWN, SILENT], redis.exceptions.TimeoutError, "no such service"),
        ([SILENT, SILENT], redis.exceptions.TimeoutError, "Timeout"),
        ([UNKNOWN, b"-NOAUTH Authentication required.\r\n"], AuthenticationError, "Authentication required"),
        ([SILENT, b"-NOPERM this user has no permissions\r\n"], AuthenticationError, "no permissions"),
    ],
)
def test_without_a_master_the_error_says_what_each_answered(
    find: Callable[..., Endpoint], script: Script, answers: list[bytes], error: type[RedisError], reason: str
) -> None:
    asked = [script(answer) for answer in answers]

    with pytest.raises(RedisError, match=reason) as caught:
        find(*asked)

    assert type(caught.value) is error
    assert "no Sentinel names a master for 'primary'" in str(caught.value)
    assert all(f"127.0.0.1:{sentinel.port}: " in str(caught.value) for sentinel in asked)


@both
def test_the_password_of_the_sentinels_is_sent_to_them_and_not_shown(
    find: Callable[..., Endpoint], script: Script
) -> None:
    refusing = script(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n")

    with pytest.raises(AuthenticationError) as caught:
        find(refusing, username="asker", password="pa55word")

    assert b"pa55word" in refusing.heard[0]
    assert b"SENTINEL" not in b"".join(refusing.heard)
    assert "pa55" not in str(caught.value)


def test_the_one_that_answered_last_is_asked_first(script: Script) -> None:
    unknowing, knowing = script(UNKNOWN), script(MASTER)
    finder = MasterFinder(_sentinels(unknowing, knowing), timeout_s=1.0)

    for _ in range(3):
        finder.find()

    assert (len(unknowing.heard), len(knowing.heard)) == (1, 3)


@pytest.mark.parametrize(("timeout_s", "count", "each_s"), [(5.0, 3, 0.5), (0.6, 3, 0.2), (0.25, 5, 0.1)])
def test_silent_sentinels_share_the_time_of_the_caller(timeout_s: float, count: int, each_s: float) -> None:
    hosts = tuple(("sentinel.invalid", port) for port in range(1, count + 1))
    sentinels = Sentinels(hosts=hosts, service="primary", transport="tcp", options={})

    assert MasterFinder(sentinels, timeout_s).each_s == pytest.approx(each_s)


def _sentinels(*asked: ScriptedSentinel, **options: Any) -> Sentinels:
    hosts = tuple(("127.0.0.1", sentinel.port) for sentinel in asked)
    return Sentinels(hosts=hosts, service="primary", transport="tcp", options=options)
