"""Re-embeds a source into a sink over the bulk lane, and says beforehand what that would take."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

from producer.bulk.jsonl import JsonlSink, JsonlSource, Record
from producer.client import Producer
from producer.core import DEFAULT_WINDOW

_SURVEY_ROWS = 1000


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What a run would do. `estimate_s` is None while the pool has not yet computed anything to measure by."""

    rows: int
    cached: int
    missing_bytes: int
    estimate_s: float | None


def reembed(
    producer: Producer,
    source: JsonlSource,
    sink: JsonlSink,
    *,
    kind: str = "passage",
    window: int = DEFAULT_WINDOW,
    on_row: Callable[[], None] = lambda: None,
) -> int:
    """Embed every record of the source into the sink, in order, `window` rows in flight; return their number.

    Any failure leaves the sink as it was.
    """
    waiting: deque[Record] = deque()

    def texts() -> Iterator[str]:
        for record in source:
            waiting.append(record)
            yield record.text

    rows = 0
    with sink.open() as stream:
        for vector in producer.iter_embed(texts(), kind, window=window):
            sink.write(stream, waiting.popleft(), vector)
            rows += 1
            on_row()
    return rows


def survey(producer: Producer, source: JsonlSource, *, kind: str = "passage") -> Survey:
    """Read the whole source and the cache, and estimate the time by what the pool has done so far."""
    rows = cached = missing_bytes = 0
    records = iter(source)
    while texts := [record.text for record in islice(records, _SURVEY_ROWS)]:
        there = producer.cached(texts, kind)
        rows += len(texts)
        cached += sum(there)
        missing_bytes += sum(len(text.encode()) for text, hit in zip(texts, there, strict=True) if not hit)
    return Survey(rows=rows, cached=cached, missing_bytes=missing_bytes, estimate_s=_estimate(producer, missing_bytes))


def _estimate(producer: Producer, missing_bytes: int) -> float | None:
    """Seconds for so much text: the pool's bytes per busy second so far, times its healthy workers."""
    state = producer.queue_state("embed")
    computed, busy_ms = state.counters.get("text_bytes", 0), state.counters.get("busy_ms", 0)
    workers = sum(worker.healthy for worker in state.workers)
    if not (computed and busy_ms and workers):
        return None if missing_bytes else 0.0
    return missing_bytes / (computed / (busy_ms / 1000) * workers)
