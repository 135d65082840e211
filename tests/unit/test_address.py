"""Where Redis is: URLs with and without Sentinels, credentials, and errors that do not repeat them."""

from typing import Any

import pytest

from producer import ConfigurationError, ProducerSettings
from producer.address import Address, read_address
from producer.connection import Clients, connect, connect_async


def read(url: str, **settings: Any) -> Address:
    return read_address(ProducerSettings(redis_url=url, **settings))


@pytest.mark.parametrize(
    ("url", "transport", "options"),
    [
        ("redis://localhost", "tcp", {"host": "localhost"}),
        ("redis://10.0.0.1:6380/2", "tcp", {"host": "10.0.0.1", "port": 6380, "db": 2}),
        ("rediss://redis.example:6380/0", "tls", {"host": "redis.example", "port": 6380, "db": 0}),
        ("rediss://r?ssl_ca_certs=/ca.pem", "tls", {"host": "r", "ssl_ca_certs": "/ca.pem"}),
        ("unix:///run/redis.sock?db=3", "unix", {"path": "/run/redis.sock", "db": 3}),
    ],
)
def test_the_urls_of_redis_py(url: str, transport: str, options: dict[str, Any]) -> None:
    address = read(url)

    assert address.transport == transport
    assert address.sentinels is None
    assert address.options == {**options, "username": None, "password": None}


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("sentinel", (("sentinel", 26379),)),
        ("sentinel:5000", (("sentinel", 5000),)),
        ("a:1,b,10.0.0.3:65535", (("a", 1), ("b", 26379), ("10.0.0.3", 65535))),
        ("[::1]", (("::1", 26379),)),
        ("a,[2001:db8::2]:5000,b:7", (("a", 26379), ("2001:db8::2", 5000), ("b", 7))),
    ],
)
def test_the_hosts_of_sentinels(hosts: str, expected: tuple[tuple[str, int], ...]) -> None:
    address = read(f"redis+sentinel://{hosts}/primary")

    assert address.sentinels is not None
    assert address.sentinels.hosts == expected
    assert address.sentinels.service == "primary"
    assert "host" not in address.options


@pytest.mark.parametrize(
    ("rest", "service", "database"),
    [
        ("primary", "primary", 0),
        ("primary/", "primary", 0),
        ("primary/3", "primary", 3),
        ("primary/3/", "primary", 3),
        ("a%2Fb%20c/1", "a/b c", 1),
        ("primary?db=4", "primary", 4),
    ],
)
def test_the_service_and_the_database(rest: str, service: str, database: int) -> None:
    address = read(f"redis+sentinel://s1,s2/{rest}")

    assert address.sentinels is not None
    assert address.sentinels.service == service
    assert address.options.get("db", 0) == database


def test_options_are_those_of_the_master_but_tls_is_shared_with_the_sentinels() -> None:
    address = read(
        "rediss+sentinel://app:p%40ss@s1:5000,s2/primary/1?ssl_ca_certs=/ca.pem&client_name=me"
        "&sentinel_username=asker&sentinel_password=s%26cret"
    )

    assert address.transport == "tls"
    assert address.options == {
        "username": "app",
        "password": "p@ss",
        "db": 1,
        "ssl_ca_certs": "/ca.pem",
        "client_name": "me",
    }
    assert address.sentinels is not None
    assert address.sentinels.transport == "tls"
    assert address.sentinels.options == {"username": "asker", "password": "s&cret", "ssl_ca_certs": "/ca.pem"}


def test_sentinels_get_no_credentials_that_are_not_theirs() -> None:
    address = read("redis+sentinel://app:secret@s1/primary", redis_user="u", redis_password="p")

    assert address.sentinels is not None
    assert address.sentinels.options == {"username": None, "password": None}


@pytest.mark.parametrize("scheme", ["redis://{}host", "redis+sentinel://{}host/primary"])
@pytest.mark.parametrize(
    ("login", "user", "password"),
    [
        ("", "settings-user", "settings-password"),
        ("url-user@", "url-user", "settings-password"),
        ("url-user:url-password@", "url-user", "url-password"),
        (":url-password@", None, "url-password"),
    ],
)
def test_credentials_of_the_url_win(scheme: str, login: str, user: str | None, password: str) -> None:
    address = read(scheme.format(login), redis_user="settings-user", redis_password="settings-password")

    assert (address.options.get("username"), address.options["password"]) == (user, password)


BAD_SENTINEL_URLS = [
    "redis+sentinel://:pa55word@",
    "redis+sentinel://:pa55word@s1",
    "redis+sentinel://:pa55word@s1/",
    "redis+sentinel://:pa55word@/primary",
    "redis+sentinel://:pa55word@s1,/primary",
    "redis+sentinel://:pa55word@s1,,s2/primary",
    "redis+sentinel://:pa55word@s1:port/primary",
    "redis+sentinel://:pa55word@s1:0/primary",
    "redis+sentinel://:pa55word@s1:65536/primary",
    "redis+sentinel://:pa55word@s1:99999999999/primary",
    "redis+sentinel://:pa55word@::1/primary",
    "redis+sentinel://:pa55word@[::1/primary",
    "redis+sentinel://:pa55word@[nonsense]/primary",
    "redis+sentinel://:pa55word@s1/primary/zero",
    "redis+sentinel://:pa55word@s1/primary/0/1",
    "redis+sentinel://:pa55word@s1/primary#x",
    "redis+sentinel://:pa55/word@s1/primary/0",
    "redis+sentinel://:pa55word@s1 s2/primary",
    "redis+sentinel://:pa55word@s1/primary?db=zero",
    "redis+sentinel://:pa55word@s1/primary?colour=blue",
    "redis+sentinel://:pa55word@s1/primary?ssl_ca_certs=/ca.pem",
    "rediss+sentinel://:pa55word@s1/primary?ssl_cert_reqs=perhaps",
    "redis-sentinel://:pa55word@s1/primary",
    "sentinel://:pa55word@s1/primary",
    "REDIS+SENTINEL://:pa55word@s1/primary",
]


@pytest.mark.parametrize(
    "url",
    [
        *BAD_SENTINEL_URLS,
        "redis://:pa55word@h?colour=blue",
        "redis://:pa55word@h?sentinel_password=pa55",
        "redis://:pa55word@h?ssl_ca_certs=/ca.pem",
        "redis://:pa55word@h?protocol=9",
        "redis://:pa55word@h?max_connections=-1",
    ],
)
@pytest.mark.parametrize("make", [connect, connect_async, Clients])
def test_a_bad_url_is_one_line_that_says_the_form_and_repeats_nothing(make: Any, url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make(ProducerSettings(redis_url=url))

    assert caught.value.code == "bad_redis_url"
    text = str(caught.value)
    assert "redis+sentinel://[user:password@]host:port,host:port,…/service/db" in text
    assert "pa55" not in text
    assert "\n" not in text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "url",
    [
        "redis://app:pa55word@h:1/0",
        "rediss://h?password=pa55word",
        "redis+sentinel://app:pa55word@s1/primary?sentinel_password=pa55word",
    ],
)
def test_no_repr_holds_a_secret(url: str) -> None:
    settings = ProducerSettings(redis_url=url, redis_password="pa55word")

    for shown in (settings, read_address(settings), connect(settings), connect_async(settings)):
        assert "pa55" not in repr(shown)


def test_replies_stay_bytes_whatever_the_url_asks_for() -> None:
    client = connect(ProducerSettings(redis_url="redis://h?decode_responses=true"))

    assert client.connection_pool.connection_kwargs["decode_responses"] is False
