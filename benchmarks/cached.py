"""What is cached costs hardly more than reading its bytes: `embed` against GET, `embed_many` against MGET."""

import time
from collections.abc import Callable, Sequence
from itertools import cycle
from statistics import median

from benchmarks import corpus, noop_pool
from benchmarks.finding import Finding, in_turns
from benchmarks.site import site
from producer.wire.keys import Kind, QueueKeys, digest
from producer.wire.models import resolve

_ROWS = 1000
_ROUNDS = 11
_SINGLE_CALLS = 1000
_MANY_CALLS = 15


def run() -> list[Finding]:
    """Measure both with vectors of 384 dimensions, and on the other side a client that anyone would make."""
    texts = corpus.texts(_ROWS)
    queue = QueueKeys.of(resolve("embed", noop_pool.MODEL))
    keys = [queue.reply(digest(Kind.PASSAGE, text)) for text in texts]
    with site(HEADRACE_EMBED_MODEL=noop_pool.MODEL) as place, place.producer() as producer, place.client() as client:
        with place.pool("embed", module="benchmarks.noop_pool"):
            producer.embed_many(texts)
        # Fetched over and over in the same order, on both sides.
        next_text, next_key = cycle(texts), cycle(keys)
        single = in_turns(
            lambda: _p50_us(lambda: producer.embed(next(next_text), kind="passage"), _SINGLE_CALLS),
            lambda: _p50_us(lambda: client.get(next(next_key)), _SINGLE_CALLS),
            rounds=_ROUNDS,
        )
        many = in_turns(
            lambda: _p50_us(lambda: producer.embed_many(texts), _MANY_CALLS),
            lambda: _p50_us(lambda: client.mget(keys), _MANY_CALLS),
            rounds=_ROUNDS,
        )
        _check_all_cached(producer.cached(texts))
    return [
        Finding(
            target="7",
            what="cached embed, p50",
            against="GET of the same bytes",
            measured=single.ratio,
            bound=1.4,
            at_least=False,
            ours=f"{single.ours:.0f} us",
            theirs=f"{single.theirs:.0f} us",
            note="checking, hashing and decoding in Python, beside a round trip of some tens of microseconds",
        ),
        Finding(
            target="7",
            what=f"embed_many of {_ROWS:,} cached, p50",
            against="MGET of the same bytes",
            measured=many.ratio,
            bound=2.0,
            at_least=False,
            ours=f"{many.ours / 1000:.2f} ms",
            theirs=f"{many.theirs / 1000:.2f} ms",
            note="each text is checked and hashed, and each reply decoded, in Python",
        ),
    ]


def _p50_us(call: Callable[[], object], calls: int) -> float:
    durations = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        durations.append(time.perf_counter() - started)
    return median(durations) * 1e6


def _check_all_cached(cached: Sequence[bool]) -> None:
    if not all(cached):
        raise RuntimeError("what was to be cached is not")
