"""A hostile peer writes rubbish under the keys that tell of a queue: workers go on, callers see no foreign error."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from producer import ConfigurationError, HeadraceError, Producer
from producer.wire.keys import pools_key
from tests.chaos.rubbish import DEADLINE_S, Check, spoil
from tests.integration.harness.engine import Engine
from tests.integration.harness.fake_model import FakeModel, describe
from tests.integration.harness.site import Site
from workers.process import claim_card, connect_worker
from workers.settings import WorkerSettings
from workers.streams import Streams


def status_keys(site: Site) -> dict[str, str]:
    """What tells of a queue and is no part of it, by what it is for."""
    queue = site.queue()
    return {"workers": queue.workers, "stats": queue.stats, "model": queue.card, "pools": pools_key(site.namespace)}


each_status_key = pytest.mark.parametrize("name", ["workers", "stats", "model", "pools"])
each_status_type = pytest.mark.parametrize("kind", ["list", "string"])


@each_status_key
@each_status_type
@pytest.mark.usefixtures("engine")
def test_rubbish_under_a_status_key_does_not_stop_a_running_worker(
    solo: Site, producer: Producer, check: Check, name: str, kind: str
) -> None:
    check.answered(producer, "before")
    spoil(solo, status_keys(solo)[name], kind)

    check.serving("after it")
    check.answered(producer, "after it, too")


@pytest.mark.parametrize(
    "name",
    [pytest.param("workers"), "stats", "pools"],
)
def test_rubbish_under_a_status_key_does_not_keep_a_worker_from_starting(solo: Site, check: Check, name: str) -> None:
    spoil(solo, status_keys(solo)[name], "list")

    with Engine(solo, lease_s=1.0):
        check.serving("after it")


@each_status_type
def test_a_model_card_that_cannot_be_read_is_an_error_of_configuration(solo: Site, kind: str) -> None:
    spoil(solo, solo.queue().card, kind)
    stopping = threading.Event()
    with connect_worker(WorkerSettings(redis_url=solo.url)) as client, ThreadPoolExecutor(1) as threads:
        card = describe("embed", FakeModel(), solo.model).card
        streams = Streams(client, solo.queue(), "engine/0")
        claimed: Future[None] = threads.submit(claim_card, streams, card, 60, stopping)  # type: ignore[arg-type]
        with suppress(TimeoutError):
            claimed.exception(2.0)
        stopping.set()
        assert isinstance(claimed.exception(DEADLINE_S), ConfigurationError)


@each_status_key
@each_status_type
def test_another_type_under_a_status_key_costs_callers_no_other_error(solo: Site, name: str, kind: str) -> None:
    spoil(solo, status_keys(solo)[name], kind)

    check_only_own_errors(solo)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("workers", b"host/0", b"\xff"),
        ("workers", b"", b""),
        ("stats", b"rows", b"9" * 30),
        ("pools", b"", b""),
        ("pools", b"embed", b"embed"),
        pytest.param("workers", b"\xff", b""),
        pytest.param("stats", b"\xff", b"1"),
        pytest.param("stats", b"rows", b"12.5"),
        pytest.param("stats", b"rows", b""),
        pytest.param("pools", b"\xff", b"model"),
        pytest.param("pools", b"embed:tag", b"\xff"),
    ],
)
def test_rubbish_in_a_status_hash_costs_callers_no_other_error(solo: Site, name: str, field: Any, value: bytes) -> None:
    solo.client.hset(status_keys(solo)[name], field, value)

    check_only_own_errors(solo)


def check_only_own_errors(site: Site) -> None:
    """With no worker there, whatever a caller asks ends as it should or in an error of our own."""
    with site.producer(timeout_s=0.3) as producer:
        for ask in (lambda: producer.queue_state("embed"), producer.queue_states, lambda: producer.embed("text")):
            with suppress(HeadraceError):
                ask()
