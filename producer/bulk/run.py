"""One start of a re-embedding: rows in flight, rows to write, and how far everything before is done."""

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice

from producer.bulk.checkpoint import Checkpoint, CheckpointFile
from producer.bulk.conditions import Conditions
from producer.bulk.ends import Embedded, Record, Sink, Source, Space, Spoilt, Totals
from producer.bulk.front import Front
from producer.bulk.order import Order
from producer.bulk.progress import Meter, Progress
from producer.bulk.rejects import Reject, RejectsFile
from producer.bulk.texts import FIRST_RECORDS, TextMaker, look_at_first, rejected
from producer.client import Producer
from producer.errors import InvalidRequest

logger = logging.getLogger("headrace.producer")

_WRITE_SHARE = 4
"""So many writes fill a window. What is written beyond the checkpoint, and what waits to be, is never more than one."""

_WRITE_EVERY_S = 5.0
_MANY_FAILURES = 1000
_MOST_HELD = 10_000
"""Items beyond the front: rejects in a row would otherwise be held until a text comes after them."""


class Run:
    """Carries the order out from a checkpoint to the end."""

    def __init__(
        self,
        producer: Producer,
        source: Source,
        sink: Sink,
        order: Order,
        *,
        space: Space,
        kept: CheckpointFile,
        start: Checkpoint,
        on_progress: Callable[[Progress], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._producer, self._source, self._sink, self._order = producer, source, sink, order
        self._space, self._kept, self._start, self._clock = space, kept, start, clock
        self._where = Conditions.parse(order.where)
        self._maker = TextMaker(order, producer.settings.max_text_bytes)
        self._rejects = RejectsFile(kept.rejects_path, start.rejects_bytes)
        self._front = Front()
        self._sent: dict[int, tuple[int, Record, str]] = {}
        self._ready: dict[int, tuple[Embedded, bool]] = {}
        self._ordered = sink.ordered or not source.unique_ids  # the last of several records with one identity counts
        self._mark = start.mark
        self._begun = self._exhausted = False
        self._written_at = clock()
        self.meter = Meter(
            producer,
            _total(source, self._where, order.limit),
            on_progress,
            rows=start.rows,
            rejected=start.rejected,
            cached_rows=start.cached_rows,
            clock=clock,
        )

    def carry_out(self) -> Checkpoint:
        """Embed and write all that is left, and let the sink show it; the answer is the last checkpoint."""
        self._rejects.begin()
        if self._mark is not None:
            self._begin()
        items = self._items()
        while not self._exhausted:
            self._embed(self._texts(items))
            self._write()
        return self._finish()

    def _embed(self, texts: Iterator[str]) -> None:
        """Embed and write until the texts end."""
        write_rows = max(1, self._order.window // _WRITE_SHARE)
        in_flight = max(1, self._order.window - write_rows)
        for outcome in self._producer.iter_outcomes(texts, self._order.kind, window=in_flight):
            number, record, text = self._sent.pop(outcome.index)
            if outcome.vector is not None:
                embedded = Embedded(record=record, text=text, vector=outcome.vector)
                self._ready[number] = (embedded, outcome.cached)
                self.meter.count(text, cached=outcome.cached)
            elif outcome.error:
                self._reject(number, rejected(record, outcome.error.code, str(outcome.error)))
            full = len(self._ready) >= write_rows and len(self._due()) >= write_rows
            if full or self._clock() - self._written_at >= _WRITE_EVERY_S:
                self._write()

    def _items(self) -> Iterator[Record | Spoilt]:
        """The records that are left, after a look at the first of all for fields that none has."""
        limit = None if self._order.limit is None else max(0, self._order.limit - self._start.items)
        items = islice(self._source.records(self._where, self._start.position), limit)
        if self._start.items:
            return items
        sample = list(islice(items, FIRST_RECORDS))
        look_at_first(self._maker, sample, self._source.name)
        return chain(sample, items)

    def _texts(self, items: Iterator[Record | Spoilt]) -> Iterator[str]:
        """The texts to send, in order; what has none is set aside. They end early where too much would be held."""
        sent = 0
        for item in items:
            number = self._front.take(item.position)
            text = self._maker.make(item)
            if isinstance(text, Reject):
                self._reject(number, text)
                if self._front.taken - self._front.passed >= _MOST_HELD:
                    return
            elif isinstance(item, Record):
                self._sent[sent] = (number, item, text)
                sent += 1
                yield text
        self._exhausted = True

    def _reject(self, number: int, reject: Reject) -> None:
        self._front.reject(number, reject)
        self.meter.count_reject()
        if self._order.max_failures is not None or self._front.failed >= _MANY_FAILURES:
            self._check_failures()

    def _check_failures(self) -> None:
        """Stop a run of which so many rows fail that not they are wrong, but the order or the pool."""
        failed, taken = self._start.rejected + self._front.failed, self._start.items + self._front.taken
        allowed = taken // 10 if self._order.max_failures is None else self._order.max_failures
        if failed <= allowed or self._front.first_reject is None:
            return
        self._rejects.append(self._front.rejects_beyond())
        named = "more than a tenth" if self._order.max_failures is None else f"more than {allowed}"
        raise InvalidRequest(
            f"{failed} of {taken} rows failed, {named} (--max-failures): {self._front.first_reject.reason}; "
            f"all are in {self._rejects.path}",
            code="too_many_failures",
        )

    def _begin(self) -> None:
        if not self._begun:
            self._sink.begin(self._space, self._mark)
            self._begun = True

    def _due(self) -> list[int]:
        """What is ready to be written, in the order of the source; if that counts, up to the first row that is not."""
        return list(self._front.due(self._ready)) if self._ordered else sorted(self._ready)

    def _write(self) -> None:
        """Write what is due, and keep that it is."""
        self._check_failures()
        self._written_at = self._clock()
        numbers = self._due()
        if numbers:
            self._begin()
            rows = [self._ready.pop(number) for number in numbers]
            self._mark = self._sink.write([embedded for embedded, _ in rows])
            for number, (_, cached) in zip(numbers, rows, strict=True):
                self._front.written(number, cached=cached)
        before = self._front.passed
        self._rejects.append(self._front.move())
        if self._front.passed > before and self._sink.resumable:
            self._kept.save(self._checkpoint())

    def _checkpoint(self) -> Checkpoint:
        start, front = self._start, self._front
        return dataclasses.replace(
            start,
            position=start.position if front.position is None else front.position,
            items=start.items + front.passed,
            rows=start.rows + front.passed_rows,
            rejected=start.rejected + front.passed_rejects,
            cached_rows=start.cached_rows + front.passed_cached,
            mark=self._mark,
            rejects_bytes=self._rejects.size_bytes,
        )

    def _finish(self) -> Checkpoint:
        end = self._checkpoint()
        if self._where and not end.items:
            raise InvalidRequest(f"no record of {self._source.name} fits {', '.join(self._order.where)}")
        self._begin()
        totals = Totals(
            rows=end.rows,
            rejected=end.rejected,
            partial=bool(self._where) or self._order.limit is not None,
            unique_ids=self._source.unique_ids,
        )
        checked = self._sink.finish(totals, lambda texts: self._producer.embed_many(texts, self._order.kind))
        end = dataclasses.replace(end, finished=True, checked=checked)
        if self._sink.resumable:
            self._kept.save(end)
        self.meter.report(at_once=True)
        return end


def _total(source: Source, where: Conditions, limit: int | None) -> int | None:
    """How many records the run will take, if anybody knows."""
    count = source.count(where)
    return count if limit is None or count is None else min(count, limit)
