"""Says beforehand what a run would take: rows, what is cached, tokens, bytes, time, and texts as they would be sent."""

from dataclasses import dataclass
from itertools import chain, islice

from producer.bulk.conditions import Conditions
from producer.bulk.ends import Source
from producer.bulk.order import Order
from producer.bulk.progress import tokens_per_byte
from producer.bulk.rejects import Reject
from producer.bulk.texts import FIRST_RECORDS, TextMaker, look_at_first
from producer.client import Producer
from producer.state import QueueState

_ROWS = 1000
_SAMPLE = 3


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a run would do. `tokens` of the rows to compute are estimated by the pool's bytes per token so far, and
    `estimate_s` by its bytes per second: both are None while it has not yet computed anything to measure by."""

    rows: int
    cached: int
    rejected: int
    missing_bytes: int
    tokens: int | None
    estimate_s: float | None
    sample: tuple[str, ...]
    """The first texts, as they would be sent (the worker adds the model's prefix)."""

    first_reject: str
    """Why the first row that fails would fail; "" if none does."""


def survey(producer: Producer, source: Source, order: Order) -> Survey:
    """Read what the order takes of the source, look into the cache, and write nothing anywhere.

    Raises what `reembed` does for a source that cannot be used.
    """
    source.check()
    order = order.settled(source.usual_template())
    maker = TextMaker(order, producer.settings.max_text_bytes)
    taken = islice(source.records(Conditions.parse(order.where)), order.limit)
    first = list(islice(taken, FIRST_RECORDS))
    look_at_first(maker, first, source.name)
    items = chain(first, taken)
    rows = cached = rejected = missing_bytes = 0
    sample: list[str] = []
    first_reject = ""
    while chunk := [maker.make(item) for item in islice(items, _ROWS)]:
        texts = [made for made in chunk if isinstance(made, str)]
        rejects = [made.reason for made in chunk if isinstance(made, Reject)]
        there = producer.cached(texts, order.kind)
        rows += len(texts)
        cached += sum(there)
        rejected += len(rejects)
        missing_bytes += sum(len(text.encode()) for text, hit in zip(texts, there, strict=True) if not hit)
        sample += texts[: _SAMPLE - len(sample)]
        first_reject = first_reject or (rejects[0] if rejects else "")
    state = producer.queue_state("embed")
    per_byte = tokens_per_byte(state.counters)
    return Survey(
        rows=rows,
        cached=cached,
        rejected=rejected,
        missing_bytes=missing_bytes,
        tokens=0 if not missing_bytes else None if per_byte is None else round(missing_bytes * per_byte),
        estimate_s=_estimate(state, missing_bytes),
        sample=tuple(sample),
        first_reject=first_reject,
    )


def _estimate(state: QueueState, missing_bytes: int) -> float | None:
    """Seconds for so much text: the pool's bytes per busy second so far, times its healthy workers."""
    computed, busy_ms = state.counters.get("text_bytes", 0), state.counters.get("busy_ms", 0)
    workers = sum(worker.healthy for worker in state.workers)
    if not (computed and busy_ms and workers):
        return None if missing_bytes else 0.0
    return missing_bytes / (computed / (busy_ms / 1000) * workers)
