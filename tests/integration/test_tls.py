"""TLS to a real server that asks for client certificates: who gets in, and what others are told."""

import asyncio
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import redis
import trustme

from console.redis_server import RedisServer
from producer import ConfigurationError, Producer, RedisUnavailable
from tests.conftest import Servers
from tests.integration.harness.detached import detach_script, run_burst, status_of
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import vector_of
from tests.integration.harness.ports import free_port
from tests.integration.harness.sentinel import SERVICE, SentinelProcess
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until


@dataclass(frozen=True)
class Certificates:
    """Files in PEM: an authority, and a key and a certificate that it has signed."""

    authority: Path
    certificate: Path
    key: Path

    @property
    def of_server(self) -> dict[str, str]:
        """Directives of a server that shows this certificate and asks clients for one of the same authority."""
        return {
            "tls-cert-file": str(self.certificate),
            "tls-key-file": str(self.key),
            "tls-ca-cert-file": str(self.authority),
            "tls-auth-clients": "yes",
        }

    @property
    def of_client(self) -> dict[str, str]:
        """Options of the URL of a client that shows this certificate and trusts its authority."""
        return {
            "ssl_ca_certs": str(self.authority),
            "ssl_certfile": str(self.certificate),
            "ssl_keyfile": str(self.key),
        }


@dataclass(frozen=True, kw_only=True)
class TlsServer:
    """A server with a plain and a TLS port, its certificates and those of its clients."""

    program: Path
    server: RedisServer
    port: int
    shown: Certificates
    client: Certificates
    folder: Path

    def url(self, *, scheme: str = "rediss", host: str = "localhost", **options: str) -> str:
        """A URL of the TLS port."""
        return f"{scheme}://{host}:{self.port}/0?{urlencode(options)}".removesuffix("?")

    def site(self, url: str) -> Site:
        """A fresh namespace at a URL; the test's own connection is a plain one."""
        plain = redis.Redis.from_url(self.server.url)
        return Site(url=url, namespace=f"test-{secrets.token_hex(4)}", client=plain)

    def encrypted_connections(self, command: str) -> int:
        """How many connections to the TLS port have this command as their last one."""
        with redis.Redis.from_url(self.server.url) as client:
            found: list[dict[str, str]] = client.client_list()
            return sum(one["laddr"].endswith(f":{self.port}") and one["cmd"] == command for one in found)


@pytest.fixture(scope="module")
def tls(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    """Debian's server: those of the wheels are built without TLS."""
    program = servers.programs.get("redis-server")
    if program is None:
        pytest.skip("there is no Redis server with TLS here: apt-get install redis-server")
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    shown = _write(folder / "server", authority, "localhost")
    client = _write(folder / "client", authority, "client.example")
    port = free_port()
    directives = [part for name, value in shown.of_server.items() for part in (f"--{name}", value)]
    with RedisServer(program, extra=("--tls-port", str(port), *directives)) as server:
        yield TlsServer(program=program, server=server, port=port, shown=shown, client=client, folder=folder)


def test_both_clients_and_a_worker_over_tls(tls: TlsServer) -> None:
    site = tls.site(tls.url(**tls.client.of_client))
    with Engine(site), site.producer() as producer:
        assert np.array_equal(producer.embed("sync"), vector_of("sync"))
        assert np.array_equal(asyncio.run(_embed(site, "async")), vector_of("async"))
        wait_until(lambda: tls.encrypted_connections("xreadgroup"), what="the worker's encrypted connection")
        assert tls.encrypted_connections("subscribe") > 0


def test_a_detached_run_over_tls(tls: TlsServer, tmp_path: Path) -> None:
    site = tls.site(tls.url(**tls.client.of_client))
    job_id = detach_script(site, tmp_path / "source.json", "finish")

    run_burst(site, tmp_path / "worker")

    assert status_of(site, job_id) == "finished"


def test_another_authority_is_refused(tls: TlsServer) -> None:
    other = _write(tls.folder / "other", trustme.CA(), "client.example")

    _check_refusal(tls, tls.url(**{**tls.client.of_client, "ssl_ca_certs": str(other.authority)}), "CERTIFICATE_VERIFY")
    _check_refusal(tls, tls.url(), "CERTIFICATE_VERIFY")


def test_a_client_without_a_certificate_is_refused(tls: TlsServer) -> None:
    _check_refusal(tls, tls.url(ssl_ca_certs=str(tls.client.authority)), "ssl_certfile and ssl_keyfile")


def test_a_certificate_of_another_authority_is_refused(tls: TlsServer) -> None:
    other = _write(tls.folder / "stranger", trustme.CA(), "client.example")

    _check_refusal(
        tls,
        tls.url(**{**other.of_client, "ssl_ca_certs": str(tls.client.authority)}),
        "unknown.ca|it closes connections",
    )


def test_a_host_of_another_name_is_refused(tls: TlsServer) -> None:
    _check_refusal(tls, tls.url(host="127.0.0.1", **tls.client.of_client), "(IP address|Hostname) mismatch")


def test_plain_text_to_the_tls_port_is_refused(tls: TlsServer) -> None:
    _check_refusal(tls, tls.url(scheme="redis"), "write rediss://")


def test_a_certificate_that_is_not_there_is_refused(tls: TlsServer) -> None:
    missing = {**tls.client.of_client, "ssl_certfile": str(tls.folder / "missing.pem")}

    with pytest.raises(ConfigurationError, match="ssl_certfile in REDIS_URL names a file that is not there") as refusal:
        Producer.from_url(tls.url(**missing))
    assert str(tls.folder) not in str(refusal.value)


def test_sentinels_and_the_master_over_tls(tls: TlsServer) -> None:
    port = free_port()
    directives = [f"{name} {value}" for name, value in tls.shown.of_server.items()]
    lines = [f"tls-port {port}", "tls-replication yes", *directives]
    with SentinelProcess(tls.program, master_port=tls.port, lines=lines) as sentinel:
        wait_until(lambda: "+monitor" in sentinel.log, what="a Sentinel that is up")
        options = urlencode({**tls.client.of_client, "ssl_check_hostname": "no"})  # a Sentinel tells addresses
        site = tls.site(f"rediss+sentinel://localhost:{port}/{SERVICE}?{options}")
        with Engine(site), site.producer() as producer:
            assert np.array_equal(producer.embed("sync"), vector_of("sync"))
            assert np.array_equal(asyncio.run(_embed(site, "async")), vector_of("async"))
            assert tls.encrypted_connections("subscribe") > 0


def _write(folder: Path, authority: trustme.CA, name: str) -> Certificates:
    """Have the authority sign a certificate of that name, and write all to files."""
    folder.mkdir()
    signed = authority.issue_cert(name)
    files = Certificates(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")
    authority.cert_pem.write_to_path(str(files.authority))
    signed.cert_chain_pems[0].write_to_path(str(files.certificate))
    signed.private_key_pem.write_to_path(str(files.key))
    return files


async def _embed(site: Site, text: str) -> Any:
    async with site.async_producer() as producer:
        return await producer.embed(text)


def _check_refusal(tls: TlsServer, url: str, reason: str) -> None:
    """Check that both clients say in one line why, without paths of keys."""
    site = tls.site(url)
    with site.producer() as producer, pytest.raises(RedisUnavailable) as sync_refusal:
        producer.embed("text")
    with pytest.raises(RedisUnavailable) as async_refusal:
        asyncio.run(_embed(site, "text"))
    for refusal in (sync_refusal, async_refusal):
        text = str(refusal.value)
        assert refusal.value.code == "redis_unavailable"
        assert re.search(reason, text, flags=re.IGNORECASE), text
        assert "\n" not in text
        assert str(tls.folder) not in text
