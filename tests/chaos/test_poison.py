"""Rows that raise, give garbage, hang, hoard memory or kill their worker, among good ones: no other row dies."""

import asyncio
from collections import Counter

import numpy as np

from producer import AsyncProducer, DeadLetters, HeadraceError, RowFailed
from producer.results import Vector
from tests.chaos.campaign import Report, Sizes, chance, percent
from tests.conftest import StartPool
from tests.integration.harness.fake_model import Record, vector_of
from tests.integration.harness.poison import HANG, HOARD, KILL, POISON_POOL, POISONS
from tests.integration.harness.site import Site

WORKERS = 2
BATCH_WORDS = 64
BATCH_LIMIT_S = 1.0
CODES = {HANG: {"worker_died"}, KILL: {"worker_died"}, HOARD: {"model_failed", "worker_died"}}
"""What the callers of a row are told. One that hoards fails at the limit, unless it gets there too slowly."""


def test_just_the_poisonous_rows_die(
    solo: Site, start_pool: StartPool, sizes: Sizes, seed: int, report: Report
) -> None:
    good = [f"good row {number}" for number in range(sizes(short=200, long=2000))]
    # A row that hangs takes its worker three times the limit for a batch, a row that kills it three restarts.
    each = {poison: sizes(short=1 if poison in (HANG, KILL, HOARD) else 3, long=8) for poison in POISONS}
    bad = [f"{poison} {number}" for poison in POISONS for number in range(each[poison])]
    mixed = [*good, *bad]
    chance(seed, "order").shuffle(mixed)
    record = Record(solo.client, solo.namespace)
    pool = start_pool(
        solo,
        POISON_POOL,
        HEADRACE_PROCESSES=str(WORKERS),
        HEADRACE_BATCH_TOKENS=str(BATCH_WORDS),
        HEADRACE_BATCH_LIMIT_S=str(BATCH_LIMIT_S),
        HEADRACE_LEASE_S="1",
    )
    pool.await_healthy(WORKERS)

    answers = asyncio.run(ask_for_all(solo, mixed))
    solo.await_empty()

    check(answers, good, bad)
    letters = dead_texts(solo)
    assert letters == Counter(bad), "each just once, and no good row among them"
    assert pool.running
    assert not [text for text in bad if text in pool.stderr], "no text in the log"

    computed = Counter(record.texts())
    again = sum(computed[text] - 1 for text in good)
    report(
        "poison",
        {
            "good rows": len(good),
            "poisonous rows": len(bad),
            "dead letters": letters.total(),
            "processes killed or dead": pool.stderr.count("ended with code -9"),
            "good rows computed twice": percent(again, len(good)),
        },
    )


def check(answers: dict[str, Vector | HeadraceError], good: list[str], bad: list[str]) -> None:
    """Good rows have their vector, and bad ones an error that says why."""
    for text in good:
        answer = answers[text]
        assert isinstance(answer, np.ndarray), f"{text}: {answer!r}"
        assert np.array_equal(answer, vector_of(text))
    for text in bad:
        failure = answers[text]
        assert isinstance(failure, RowFailed), f"{text}: {failure!r}"
        assert failure.code in CODES.get(text.split(" ")[0], {"model_failed"}), text


async def ask_for_all(site: Site, texts: list[str]) -> dict[str, Vector | HeadraceError]:
    """Ask for each row by a call of its own, all at once, so that they share batches and fail one by one."""

    async def ask(producer: AsyncProducer, text: str) -> Vector | HeadraceError:
        try:
            return await producer.embed(text, "passage", timeout_s=600)
        except HeadraceError as error:
            return error

    async with site.async_producer() as producer:
        return dict(zip(texts, await asyncio.gather(*(ask(producer, text) for text in texts)), strict=True))


def dead_texts(site: Site) -> Counter[str]:
    """The texts of all dead letters."""
    models = {"embed_model": site.model, "rerank_model": site.model}
    with DeadLetters.from_url(site.url, namespace=site.namespace, **models) as dead:
        return Counter(row.text for letter in dead.iterate("embed") if letter.job for row in letter.job.rows)
