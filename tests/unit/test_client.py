"""Both clients' surface, and what they do on an in-memory Redis: no I/O before the first call, errors mapped once."""

import asyncio
import inspect
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import fakeredis
import numpy as np
import pytest
import redis
from redis.exceptions import AuthenticationError, NoPermissionError, OutOfMemoryError, ReadOnlyError

import producer
from producer import AsyncProducer, ConfigurationError, HeadraceError, InvalidText, Producer, RedisUnavailable
from producer.wire.codec import encode_reply
from producer.wire.keys import Lane
from tests.unit.fakes import EMBED_QUEUE, failure, query, result_of, vector_of

UNREACHABLE = "redis://:secret@unreachable.invalid:1/0"
ROOT = Path(__file__).parents[2]
Call = Callable[[Any], Any]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> redis.Redis:
    """Let both clients connect to one in-memory Redis; return a plain client of it."""
    shared = fakeredis.FakeServer()
    monkeypatch.setattr("producer.connection.connect", lambda *_, **__: fakeredis.FakeRedis(server=shared))
    monkeypatch.setattr("producer.aio.connect_async", lambda *_, **__: fakeredis.FakeAsyncRedis(server=shared))
    client: redis.Redis = fakeredis.FakeRedis(server=shared)
    return client


def call_sync(call: Call, **settings: Any) -> Any:
    with Producer.from_url("redis://in-memory", embed_model="offline", **settings) as client:
        return call(client)


def call_async(call: Call, **settings: Any) -> Any:
    async def scenario() -> Any:
        async with AsyncProducer.from_url("redis://in-memory", embed_model="offline", **settings) as client:
            answer: Awaitable[Any] = call(client)
            return await answer

    return asyncio.run(scenario())


ITERATING = {"iter_embed", "iter_outcomes"}

both = pytest.mark.parametrize("run", [call_sync, call_async], ids=["sync", "async"])


def public(cls: type) -> dict[str, Any]:
    return {name: getattr(cls, name) for name in vars(cls) if not name.startswith("_")}


def test_the_two_clients_have_the_same_names_parameters_and_defaults() -> None:
    assert public(Producer).keys() == public(AsyncProducer).keys()
    for name in public(Producer):
        one, other = (inspect.signature(getattr(cls, name)) for cls in (Producer, AsyncProducer))
        assert list(one.parameters) == list(other.parameters), name
        for parameter in one.parameters.values():
            twin = other.parameters[parameter.name]
            assert (parameter.kind, parameter.default) == (twin.kind, twin.default), name
            assert parameter.annotation == twin.annotation or (name in ITERATING and parameter.name == "texts")
        assert one.return_annotation == other.return_annotation or name in ITERATING


def test_all_calls_of_the_async_client_are_awaited_but_those_that_iterate() -> None:
    plain = {name for name, member in public(AsyncProducer).items() if not inspect.iscoroutinefunction(member)}

    assert plain == {"from_url", "from_env", *ITERATING}


def test_the_public_names_are_sorted_and_exist() -> None:
    assert producer.__all__ == sorted(producer.__all__)
    assert all(hasattr(producer, name) for name in producer.__all__)


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("producer", ["fastembed", "onnxruntime", "tokenizers", "click", "rich", "rq", "workers", "console", "cli"]),
        ("producer.bulk.pipeline", ["fastembed", "onnxruntime", "tokenizers", "click", "rich", "rq", "workers"]),
        ("cli", ["fastembed", "onnxruntime", "rq", "tokenizers"]),
        ("console.reembed_jobs", ["fastembed", "onnxruntime", "rq", "tokenizers"]),
    ],
)
def test_importing_loads_nothing_heavy(module: str, forbidden: list[str]) -> None:
    script = f"import sys, {module}; print([name for name in {forbidden!r} if name in sys.modules])"

    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[]"


def test_constructors_neither_connect_nor_start_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a constructor opens a socket")

    monkeypatch.setattr("socket.socket", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    threads = threading.active_count()

    Producer.from_url(UNREACHABLE).close()
    AsyncProducer.from_url(UNREACHABLE)

    assert threading.active_count() == threads


def test_closing_twice_is_fine(server: redis.Redis) -> None:
    async def close_twice() -> None:
        client = AsyncProducer.from_url(UNREACHABLE)
        await client.close()
        await client.close()

    one = Producer.from_url(UNREACHABLE)
    one.close()
    one.close()
    asyncio.run(close_twice())


@pytest.mark.parametrize("cls", [Producer, AsyncProducer])
@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "http://:pa55word@localhost",
        "redis://:pa55word@localhost:port/0",
        "redis://:pa55word@localhost:99999999/0",
        "redis://:pa55#word@localhost",
        None,
        7,
    ],
)
def test_a_bad_url_is_a_configuration_error_that_does_not_hold_the_password(cls: Any, url: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        cls.from_url(url)

    assert caught.value.code == "bad_redis_url"
    assert "pa55" not in str(caught.value)
    assert caught.value.__cause__ is None
    hidden = caught.value.__suppress_context__ or caught.value.__context__ is None
    assert hidden, "a traceback would show the password"


@both
def test_cached_vectors_need_no_worker(server: redis.Redis, run: Callable[..., Any]) -> None:
    server.set(EMBED_QUEUE.reply(query("a").digest), encode_reply(result_of(query("a"))))

    vector = run(lambda client: client.embed(" a\n"))

    assert np.array_equal(vector, vector_of("a"))
    assert server.hgetall(EMBED_QUEUE.stats) == {b"hits": b"1"}
    assert server.xlen(EMBED_QUEUE.lane(Lane.INTERACTIVE)) == 0


@both
def test_cached_rows_are_told_without_a_worker(server: redis.Redis, run: Callable[..., Any]) -> None:
    server.set(EMBED_QUEUE.reply(query("a").digest), encode_reply(result_of(query("a"))))
    server.set(EMBED_QUEUE.reply(query("b").digest), encode_reply(failure()))

    assert run(lambda client: client.cached(["a", "b", "c"], "query")) == [True, False, False]


@both
def test_without_a_worker_the_job_is_sent_the_call_times_out_and_says_what_to_start(
    server: redis.Redis, run: Callable[..., Any]
) -> None:
    with pytest.raises(producer.ResultTimeout, match="headrace worker embed --model offline"):
        run(lambda client: client.embed("a"), timeout_s=0.05)

    assert server.xlen(EMBED_QUEUE.lane(Lane.INTERACTIVE)) == 1


@both
def test_the_state_of_a_queue_without_anything_is_empty(server: redis.Redis, run: Callable[..., Any]) -> None:
    state = run(lambda client: client.queue_state("embed"))

    assert (state.task, state.tag, state.dead, state.workers, state.counters, state.card) == (
        "embed",
        EMBED_QUEUE.tag,
        0,
        (),
        {},
        None,
    )
    assert [(lane.waiting, lane.in_flight, lane.oldest_age_ms) for lane in state.lanes.values()] == [(0, 0, 0)] * 2


@both
def test_invalid_input_reaches_the_caller_before_redis_does(server: redis.Redis, run: Callable[..., Any]) -> None:
    with pytest.raises(InvalidText):
        run(lambda client: client.embed("  "))
    assert server.keys() == []


@both
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (redis.ConnectionError("refused"), "redis_unavailable"),
        (redis.TimeoutError("slow"), "redis_unavailable"),
        (OSError("no route"), "redis_unavailable"),
        (redis.ResponseError("WRONGTYPE"), "redis_refused"),
        (AuthenticationError("WRONGPASS"), "redis_refused"),
        (NoPermissionError("NOPERM"), "redis_refused"),
        (OutOfMemoryError("OOM"), "redis_refused"),
        (ReadOnlyError("READONLY"), "redis_refused"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_errors_of_the_redis_library_become_ours_with_their_cause(
    server: redis.Redis, run: Callable[..., Any], error: Exception, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(fakeredis.FakeRedis, "execute_command", fail)
    monkeypatch.setattr(fakeredis.FakeAsyncRedis, "execute_command", fail)

    with pytest.raises(RedisUnavailable) as caught:
        run(lambda client: client.queue_states())

    assert caught.value.code == code
    assert caught.value.__cause__ is error
    assert isinstance(caught.value, HeadraceError)
