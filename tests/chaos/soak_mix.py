"""One round of a soak: callers of every kind, cache hits, failing rows, late callers, abandoned jobs; all checked."""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pytest

from producer import AsyncProducer, Producer, ResultTimeout, RowFailed
from tests.chaos.applications import abandoned_job
from tests.chaos.noting_model import FAIL
from tests.chaos.texts import mixed_texts
from tests.integration.harness.fake_model import score_of, vectors_of
from tests.integration.harness.site import Site

BULK_ROWS = 250
CALLERS = 4
CALL_ROWS = 25
REPEATED_ROWS = 50
DOCUMENTS = 20
FAILING = tuple(f"{FAIL}-{number}" for number in range(5))
"""The same in every round, so that their failures' keys are as many at the end as at the start."""

HURRIED_ROWS = 10
HURRY_S = (0.0001, 0.002)
ABANDONED_ROWS = 10
SPIN = "for _ = 1, 2000000 do end"
"""A script that keeps Redis busy for some milliseconds."""

ROWS = BULK_ROWS + CALLERS * CALL_ROWS + 3 * CALL_ROWS + 2 * DOCUMENTS + len(FAILING) + HURRIED_ROWS + ABANDONED_ROWS
"""Of one round."""


@dataclass
class Tally:
    """What the rounds have come to."""

    rows: int = 0
    failures: int = 0
    timeouts: int = 0
    producers: int = 0


class Mix:
    """Sends rounds of rows. `lasting` lives as long as the soak, and each round makes producers of its own besides."""

    def __init__(self, site: Site, lasting: Producer, chance: random.Random) -> None:
        self.tally = Tally()
        self._site = site
        self._lasting = lasting
        self._chance = chance
        self._lately: list[str] = []
        self._number = 0

    def round(self) -> None:
        """Send one round and check every answer."""
        self._number += 1
        with self._site.producer() as fresh, ThreadPoolExecutor(CALLERS + 4) as threads:
            producer = self._lasting if self._number % 2 else fresh
            parts: list[Callable[[], None]] = [
                lambda: self._bulk(producer),
                *[lambda caller=caller: self._interactive(fresh, caller) for caller in range(CALLERS)],
                lambda: asyncio.run(self._asynchronous()),
                lambda: self._rerank(producer),
                lambda: self._trouble(producer),
            ]
            for part in [threads.submit(part) for part in parts]:
                part.result(120)
        self.tally.rows += ROWS
        self.tally.producers += 2

    def _texts(self, part: str, count: int) -> list[str]:
        return mixed_texts(count, self._chance, name=f"{part}-{self._number}")

    def _bulk(self, producer: Producer) -> None:
        texts = self._texts("bulk", BULK_ROWS - REPEATED_ROWS)
        texts += self._lately
        texts += texts[: BULK_ROWS - len(texts)]
        self._lately = texts[:REPEATED_ROWS]
        vectors = list(producer.iter_embed(texts, window=128))
        assert np.array_equal(np.stack(vectors), vectors_of(texts))

    def _interactive(self, producer: Producer, caller: int) -> None:
        # Half of the rows are those of another caller as well: one computation for both.
        shared = [f"shared-{self._number}-{caller // 2}-{n}" for n in range(CALL_ROWS // 2)]
        texts = shared + self._texts(f"call-{caller}", CALL_ROWS - len(shared))
        assert np.array_equal(producer.embed_many(texts), vectors_of(texts))

    async def _asynchronous(self) -> None:
        calls = [self._texts(f"async-{call}", CALL_ROWS) for call in range(3)]
        async with self._site.async_producer() as producer:
            first, second, third = await asyncio.gather(
                producer.embed_many(calls[0]), producer.embed_many(calls[1]), _stream(producer, calls[2])
            )
        assert np.array_equal(np.concatenate([first, second, third]), vectors_of([t for call in calls for t in call]))

    def _rerank(self, producer: Producer) -> None:
        for query in ("first", "second"):
            documents = self._texts(f"document-{query}", DOCUMENTS)
            ranking = producer.rerank(query, documents)
            assert [result.score for result in ranking.results] == sorted(
                (score_of(query, document) for document in documents), reverse=True
            )

    def _trouble(self, producer: Producer) -> None:
        for text in FAILING:
            with pytest.raises(RowFailed):
                producer.embed(text)
            self.tally.failures += 1
        for number in range(HURRIED_ROWS):
            try:
                producer.embed(f"hurried-{self._number}-{number}", timeout_s=HURRY_S[number % len(HURRY_S)])
            except ResultTimeout:
                self.tally.timeouts += 1
        self._abandon()

    def _abandon(self) -> None:
        """Put jobs on the bulk lane that are too old as soon as anybody can read them."""
        texts = [f"late-{self._number}-{number}" for number in range(ABANDONED_ROWS)]
        with self._site.client.pipeline() as transaction:
            for text in texts:
                transaction.execute_command(*abandoned_job(self._site, text, budget_s=0.001).command)
            transaction.eval(SPIN, 0)
            transaction.execute()


async def _stream(producer: AsyncProducer, texts: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.stack([vector async for vector in producer.iter_embed(texts, window=CALL_ROWS)])
