"""Rubbish under keys where something else is expected, and the check that a worker goes on serving all the same."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import redis

from producer import Producer
from producer.wire.keys import Lane
from tests.integration.harness.fake_model import vector_of
from tests.integration.harness.site import Site
from tests.integration.harness.waiting import wait_until

DEADLINE_S = 30.0
GIVES_UP = 4
"""A worker that says more often that Redis does not serve has met something that it cannot pass."""


WRONG_TYPES: dict[str, Callable[[redis.Redis, str], object]] = {
    "string": lambda client, key: client.set(key, "rubbish"),
    "list": lambda client, key: client.rpush(key, "rubbish"),
    "set": lambda client, key: client.sadd(key, "rubbish"),
    "hash": lambda client, key: client.hset(key, "rubbish", "rubbish"),
    "stream": lambda client, key: client.xadd(key, {"rubbish": "rubbish"}),
}


def spoil(site: Site, key: str, kind: str) -> None:
    """Put a value of that type under the key, whatever is there, before a worker can make anew what is gone."""
    with site.client.pipeline(transaction=True) as pipeline:
        pipeline.delete(key)
        WRONG_TYPES[kind](pipeline, key)
        pipeline.execute()


class Check:
    """Waits for what a worker that serves does, and fails at once when it goes round in circles."""

    def __init__(self, site: Site, caplog: pytest.LogCaptureFixture) -> None:
        self._site = site
        self._caplog = caplog

    def serving(self, text: str) -> None:
        """A caller is answered."""
        with self._site.producer(timeout_s=DEADLINE_S) as producer:
            self.answered(producer, text)

    def answered(self, producer: Producer, text: str) -> None:
        """This caller is answered."""
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(producer.embed, text, "passage")
            wait_until(lambda: asked.done() or self._circles(), DEADLINE_S, what="an answer")
            if self._circles():
                self._site.client.delete(*self._site.client.keys(f"{self._site.namespace}:*"))  # lets both go on
            error = asked.exception(DEADLINE_S)
            assert not self._circles(), self._caplog.text
            assert error is None, repr(error)
            assert np.array_equal(asked.result(), vector_of(text))

    def empty(self) -> None:
        """The lanes are empty."""
        wait_until(lambda: self._circles() or not any(map(self._site.waiting, Lane)), what="empty lanes")
        assert not self._circles(), self._caplog.text
        assert not any(map(self._site.pending, Lane))

    def forget(self) -> None:
        """What was logged so far is as it should be."""
        self._caplog.clear()

    def _circles(self) -> bool:
        return self._caplog.text.count("Redis does not serve") >= GIVES_UP
