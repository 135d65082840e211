"""How clients and workers log in, what a user may not do, and a name behind which another server becomes the master."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from console.redis_server import RedisServer
from console.stack import Stack
from producer import ConfigurationError, Producer, ProducerSettings, RedisUnavailable
from producer.settings import load
from tests.conftest import SERVERS, Servers, StartPool, make_site
from tests.integration.harness.commands import call, check_one_line, check_success, run
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import vector_of
from tests.integration.harness.ports import Forwarder
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

USER, PASSWORD = "app", "pa55 wörd/@"


@pytest.fixture(params=SERVERS)
def pair(request: pytest.FixtureRequest, servers: Servers) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Two servers for one test alone, of one kind after the other: they word a script's refusal differently."""
    if request.param not in servers.programs:
        pytest.skip(f"there is no {request.param} here")
    program = servers.programs[request.param]
    with RedisServer(program) as first, RedisServer(program) as second:
        yield first, second


@pytest.fixture
def locked(own_server: RedisServer) -> Iterator[Site]:
    """A server that lets in one user only; the test's own connection was there before."""
    for site in make_site(own_server.url):
        site.client.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all")
        with site.client.client() as held:
            held.execute_command("ACL", "SETUSER", "default", "off")
            yield replace(site, client=held)


def test_credentials_come_from_settings(locked: Site) -> None:
    login: dict[str, Any] = {"redis_user": USER, "redis_password": PASSWORD}
    with Engine(locked, **login), locked.producer(**login) as producer:
        assert np.array_equal(producer.embed("sync"), vector_of("sync"))
        assert np.array_equal(asyncio.run(_embed(locked, "async", **login)), vector_of("async"))


@pytest.mark.parametrize("login", [{}, {"redis_user": USER}, {"redis_user": USER, "redis_password": "wrong"}])
def test_credentials_that_are_wrong_are_refused_and_not_repeated(locked: Site, login: dict[str, str]) -> None:
    with locked.producer(**login) as producer, pytest.raises(RedisUnavailable) as sync_refusal:
        producer.embed("text")
    with pytest.raises(RedisUnavailable) as async_refusal:
        asyncio.run(_embed(locked, "text", **login))
    for refusal in (sync_refusal, async_refusal):
        assert refusal.value.code == "redis_refused"
        assert "wrong" not in str(refusal.value).split()


def test_a_pool_and_a_command_read_the_password_from_a_file(
    locked: Site, start_pool: StartPool, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n", encoding="utf-8")
    environ = {"HEADRACE_REDIS_USER": USER, "HEADRACE_REDIS_PASSWORD_FILE": str(secret)}
    start_pool(locked, **environ)

    def healthy() -> bool:
        return call(locked, "health", "embed", **environ).exit_code == 0

    wait_until(healthy, 60, what="a healthy worker", poll_s=0.1)
    check_success(call(locked, "enqueue", "embed", "text", **environ))
    secret.write_text("wrong\n")
    check_one_line(call(locked, "status", **environ), "Redis refuses the user or the password")
    secret.unlink()
    check_one_line(call(locked, "status", **environ), "HEADRACE_REDIS_PASSWORD_FILE")


def test_a_user_that_may_not_load_the_scripts_is_told_who_does(own_site: Site) -> None:
    own_site.client.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all", "-script")
    login = {"redis_user": USER, "redis_password": PASSWORD}
    with own_site.producer(**login) as producer:
        with pytest.raises(RedisUnavailable, match="this user may not load them: a pool loads them") as refusal:
            producer.embed("sync")
        assert refusal.value.code == "redis_unavailable"
        with pytest.raises(RedisUnavailable, match="this user may not load them: a pool loads them") as refusal:
            asyncio.run(_embed(own_site, "async", **login))
        assert refusal.value.code == "redis_unavailable"

        with Engine(own_site), own_site.producer() as loading:
            loading.embed("another")
            assert np.array_equal(producer.embed("sync"), vector_of("sync"))
            assert np.array_equal(asyncio.run(_embed(own_site, "async", **login)), vector_of("async"))


def test_a_master_that_is_demoted_behind_its_name_is_left(pair: tuple[RedisServer, RedisServer]) -> None:
    first_server, second_server = pair
    with Forwarder(first_server.port) as name, redis.Redis(port=first_server.port) as first:
        for site in make_site(second_server.url):
            moving = replace(site, url=f"redis://127.0.0.1:{name.port}/0")
            with Engine(moving), moving.producer() as producer:
                producer.embed("before")
                asyncio.run(_check_demotion(moving, first, second_server, name))
                with pytest.raises(RedisUnavailable) as refusal:
                    producer.embed("sync")
                assert refusal.value.code == "redis_refused"
                assert np.array_equal(producer.embed("sync"), vector_of("sync"))
        first.replicaof("NO", "ONE")  # the other server would wait for it before it ends


def test_up_starts_no_redis_where_sentinels_are_named(own_site: Site) -> None:
    url = "redis+sentinel://:pa55word@127.0.0.1/primary"
    refused = run(own_site, "up", "--offline", REDIS_URL=url)

    check_one_line(refused, "REDIS_URL names Sentinels", "--port")
    assert "pa55" not in refused.stderr


def test_an_embedded_redis_is_used_without_the_credentials_of_another(server_program: Path) -> None:
    environ = {
        "HEADRACE_REDIS_SERVER": str(server_program),
        "REDIS_URL": "redis+sentinel://:pa55word@127.0.0.1/primary",
        "HEADRACE_REDIS_USER": USER,
        "HEADRACE_REDIS_PASSWORD_FILE": "/nowhere",
    }
    settings = load(ProducerSettings, Stack(environ, port=1234).environ)

    assert settings.redis_url == "redis://127.0.0.1:1234/0"
    assert (settings.redis_user, settings.redis_password) == ("", "")


async def _check_demotion(site: Site, first: redis.Redis, second: RedisServer, name: Forwarder) -> None:
    """Demote the first server under an async producer: its next call is refused, the one after that is answered."""
    async with site.async_producer() as producer:
        await producer.embed("async before")
        name.target = second.port
        first.replicaof("127.0.0.1", str(second.port))
        with pytest.raises(RedisUnavailable) as refusal:
            await producer.embed("async")
        assert refusal.value.code == "redis_refused"
        assert np.array_equal(await producer.embed("async"), vector_of("async"))


async def _embed(site: Site, text: str, **settings: Any) -> Any:
    async with site.async_producer(**settings) as producer:
        return await producer.embed(text)


def test_a_server_that_repeats_a_login_is_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    """Some servers and proxies do not know HELLO, and name its arguments, the password among them."""
    with Echoing(b"-ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'app' 's3cret'\r\n") as echoing:
        url = f"redis://app:s3cret@127.0.0.1:{echoing.port}/0"
        with Producer.from_url(url, embed_model="fake") as producer, pytest.raises(RedisUnavailable) as failure:
            producer.embed("text", timeout_s=1.0)
        with redis.Redis() as nobody:
            done = run(Site(url=url, namespace="echo", client=nobody), "status", options=("--debug",))
    assert "unknown command" in str(failure.value)
    assert "s3cret" not in f"{failure.value} {failure.value.__cause__} {caplog.text} {done.stdout} {done.stderr}"


def test_a_unix_socket_works(server_program: Path, tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with (
        RedisServer(server_program, extra=("--unixsocket", str(path))) as server,
        redis.Redis(port=server.port) as client,
    ):
        site = Site(url=f"unix://{path}?db=0", namespace="socket", client=client)
        with Engine(site), site.producer() as producer:
            assert np.array_equal(producer.embed("sync"), vector_of("sync"))

            async def ask() -> None:
                async with site.async_producer() as asking:
                    assert np.array_equal(await asking.embed("async"), vector_of("async"))

            asyncio.run(ask())


def test_options_of_the_url(own_site: Site) -> None:
    """One that bounds the connections is taken; ours are the timeouts."""
    url = f"{own_site.url}?max_connections=3&socket_timeout=60&timeout=60"
    with Engine(own_site), own_site.producer(url=url) as producer, ThreadPoolExecutor(20) as threads:
        vectors = list(threads.map(producer.embed, [f"text {number}" for number in range(40)]))
    assert len(vectors) == 40
    with pytest.raises(ConfigurationError, match="ssl_ca_certs in REDIS_URL names a file that is not there"):
        own_site.producer(url="rediss://localhost:1/0?ssl_ca_certs=/nowhere/ca.pem")


def test_results_are_read_though_statistics_cannot_be_written(own_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("producer.counters._INTERVAL_S", 0.0)

    async def ask() -> None:
        async with own_site.async_producer() as asking:
            for _ in range(3):
                assert np.array_equal(await asking.embed("cached"), vector_of("cached"))

    with own_site.producer() as producer:
        with Engine(own_site):
            producer.embed("cached")
        own_site.client.set(own_site.queue().stats, "spoilt")
        for _ in range(3):
            assert np.array_equal(producer.embed("cached"), vector_of("cached"))
        asyncio.run(ask())


class Echoing:
    """A server that answers everything with one line. A context manager."""

    def __init__(self, line: bytes) -> None:
        self._line = line
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                while connection.recv(65536):
                    connection.sendall(self._line)

    def __enter__(self) -> "Echoing":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
