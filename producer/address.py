"""Reads where Redis is: the URL, the Sentinels it may name, and the credentials. Nothing is connected here."""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from redis.connection import SSLConnection, UnixDomainSocketConnection, parse_url
from redis.exceptions import RedisError

from producer.errors import ConfigurationError
from producer.settings import SharedSettings

Transport = Literal["tcp", "tls", "unix"]
Endpoint = tuple[str, int]
"""Host and port."""

_OURS = ("decode_responses", "socket_timeout", "socket_connect_timeout", "timeout")
"""Options that a URL cannot set: replies are bytes here, and every call brings its own time."""

_SENTINEL_PORT = 26379
_SENTINEL_URL = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?P<login>[^@/?#]*@)?(?P<hosts>[^@/?#]+)/(?P<service>[^/?#]+)"
    r"(?P<database>/[0-9]+)?/?(?P<query>\?[^#]*)?"
)
_HOST = re.compile(r"(?:\[(?P<ipv6>[^\[\]]+)\]|(?P<name>[^\[\]:,\s]+))(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, kw_only=True)
class Sentinels:
    """Who knows where the master of a service is, and how they are spoken to."""

    hosts: tuple[Endpoint, ...]
    service: str
    transport: Transport
    options: Mapping[str, Any] = field(repr=False)
    """Keywords of redis-py's connections to the Sentinels; they may hold a password."""


@dataclass(frozen=True, kw_only=True)
class Address:
    """What to connect to. With Sentinels, the options have no host: they tell it."""

    transport: Transport
    options: Mapping[str, Any] = field(repr=False)
    """Keywords of redis-py's connections and pools; they may hold a password."""
    sentinels: Sentinels | None = None


def read_address(settings: SharedSettings) -> Address:
    """Read `redis_url`, and add the user and the password of the settings where it has none.

    Raises:
        ConfigurationError: the URL cannot be read.
    """
    with url_errors():
        match = _SENTINEL_URL.fullmatch(settings.redis_url)
        if match is None:
            transport, options = _read_options(settings.redis_url, settings)
            return Address(transport=transport, options=options)
        # What redis-py would be told of the master, were its host known.
        master = f"{match['scheme']}://{match['login'] or ''}master{match['database'] or ''}{match['query'] or ''}"
        transport, options = _read_options(master, settings)
        del options["host"]
        logins = {name: options.pop(f"sentinel_{name}", None) for name in ("username", "password")}
        sentinels = Sentinels(
            hosts=tuple(_read_host(host) for host in match["hosts"].split(",")),
            service=unquote(match["service"]),
            transport=transport,
            options={**logins, **{name: value for name, value in options.items() if name.startswith("ssl_")}},
        )
        return Address(transport=transport, options=options, sentinels=sentinels)


@contextmanager
def url_errors() -> Iterator[None]:
    """Turn what redis-py raises over a URL and its options into `ConfigurationError`."""
    try:
        yield
    except (ValueError, TypeError, AttributeError, RedisError):
        # The URL may hold a password, and so may the error's text: neither is repeated.
        raise ConfigurationError(
            "REDIS_URL (--redis-url) is not a Redis URL: write redis://[user:password@]host:port/db, rediss://…, "
            "unix://… or redis+sentinel://[user:password@]host:port,host:port,…/service/db, options as redis-py names "
            "them, with special characters of the password percent-encoded",
            code="bad_redis_url",
        ) from None


def _read_options(url: str, settings: SharedSettings) -> tuple[Transport, dict[str, Any]]:
    options: dict[str, Any] = parse_url(url)
    database = urlsplit(url).path.strip("/")
    if not url.startswith("unix:") and database and not database.isdigit():
        raise ValueError("not a number of a database")
    connection_class = options.pop("connection_class", None)
    for name in _OURS:
        options.pop(name, None)
    if not options.get("password"):
        options["username"] = options.get("username") or settings.redis_user or None
        options["password"] = settings.redis_password or None
    if connection_class is UnixDomainSocketConnection:
        return "unix", options
    return "tls" if connection_class is SSLConnection else "tcp", options


def check_files(address: Address) -> None:
    """Refuse certificates that are not there, by the option that names them: redis-py would not say which.

    Raises:
        ConfigurationError: a file is missing.
    """
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if address.transport == "tls" and (path := address.options.get(name)) and not Path(path).is_file():
            raise ConfigurationError(f"{name} in REDIS_URL names a file that is not there", code="bad_redis_url")


def _read_host(text: str) -> Endpoint:
    match = _HOST.fullmatch(text)
    port = int(match["port"] or _SENTINEL_PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise ValueError("not a host and port")
    if match["ipv6"]:
        return str(ipaddress.IPv6Address(unquote(match["ipv6"]))), port
    return unquote(match["name"]), port
