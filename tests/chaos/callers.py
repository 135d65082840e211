"""Callers of a network campaign: seeded calls of every kind, each checked, timed, and remembered if it failed."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from producer import Producer
from producer.errors import HeadraceError, ResultTimeout
from producer.results import RerankResult, Vector
from tests.integration.harness.fake_model import score_of, vector_of, vectors_of

PATIENT_S = 60.0
"""A timeout that outlasts every fault: such a call may be refused at once, but its time must not run out."""

HASTY_S = (0.3, 1.0, 3.0)
_SHARED_TEXTS = 20
_CALLS_OF_ONE = 100_000


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call to be made, as often as it takes."""

    kind: str
    texts: tuple[str, ...]
    timeout_s: float

    @property
    def longest_s(self) -> float:
        """How long it may take: the timeout of bulk work starts anew with each vector."""
        return self.timeout_s * (len(self.texts) + 1 if self.kind == "bulk" else 1)


@dataclass
class Tally:
    """What became of calls; each caller has its own."""

    answered: int = 0
    rows: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    failed: list[Call] = field(default_factory=list)
    out_of_time: list[Call] = field(default_factory=list)
    overrun_s: float = 0.0

    def note(self, call: Call, took_s: float, error: HeadraceError | None) -> None:
        self.overrun_s = max(self.overrun_s, took_s - call.longest_s)
        if error is None:
            self.answered += 1
            self.rows += len(call.texts)
            return
        self.errors[f"{type(error).__name__} {error.code}"] += 1
        self.failed.append(call)
        if isinstance(error, ResultTimeout) and call.timeout_s >= PATIENT_S:
            self.out_of_time.append(call)


def calls(chance: random.Random, caller: str) -> Iterator[Call]:
    """What a caller asks for: mostly texts of its own, and some that others ask for, too."""
    for number in range(_CALLS_OF_ONE):
        kind = chance.choice(("embed", "embed", "rerank", "bulk", "result"))
        texts = [f"{caller} call {number} row {row}" for row in range(chance.randint(1, 8))]
        if chance.random() < 0.3:
            texts += [f"shared {chance.randrange(_SHARED_TEXTS)}" for _ in range(2)]
        timeout_s = PATIENT_S if chance.random() < 0.5 else chance.choice(HASTY_S)
        yield Call(kind=kind, texts=tuple(texts), timeout_s=timeout_s)


def keep_calling(ask: Callable[[Call], None], source: Iterator[Call], *, rows: int, stop: threading.Event) -> Tally:
    """Call until told to stop, and at least until so many rows are answered or refused; sync, in a thread."""
    tally = Tally()
    asked = 0
    while not stop.is_set() or asked < rows:
        call = next(source)
        asked += len(call.texts)
        attempt(ask, call, tally)
        stop.wait(0.02)
    return tally


def attempt(ask: Callable[[Call], None], call: Call, tally: Tally) -> None:
    """Make one call. Only Headrace's own errors may come; anything else ends the test, as does a wrong answer."""
    started = time.monotonic()
    error = None
    try:
        ask(call)
    except HeadraceError as raised:
        error = raised
    tally.note(call, time.monotonic() - started, error)


def ask_sync(producer: Producer, call: Call) -> None:
    """Make a call with the sync producer and check what it gives."""
    texts = call.texts
    match call.kind:
        case "embed":
            check_vectors(producer.embed_many(texts, timeout_s=call.timeout_s), texts)
        case "result":
            check_vectors(producer.embed_result(texts, timeout_s=call.timeout_s).embeddings, texts)
        case "rerank":
            check_ranking(producer.rerank(texts[0], texts, timeout_s=call.timeout_s), texts[0])
        case "bulk":
            for vector, text in zip(producer.iter_embed(texts, timeout_s=call.timeout_s), texts, strict=True):
                assert np.array_equal(vector, vector_of(text)), f"a wrong vector of {text!r}"


def check_vectors(vectors: Vector, texts: tuple[str, ...]) -> None:
    """The vectors are those of the texts."""
    assert np.array_equal(vectors, vectors_of(texts)), f"wrong vectors of {texts!r}"


def check_ranking(ranking: RerankResult, query: str) -> None:
    """The scores are those of the pairs."""
    for result in ranking.results:
        assert result.score == score_of(query, result.document), f"a wrong score of {result.document!r}"
