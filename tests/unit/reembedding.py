"""A source, a sink and a producer in memory, which can end the process at any of their steps, for tests of runs."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from producer.bulk.conditions import Conditions
from producer.bulk.ends import Embed, Embedded, Json, Record, Space, Spoilt, Totals
from producer.bulk.order import Order
from producer.bulk.pipeline import Outcome, reembed
from producer.client import Producer
from producer.errors import RowFailed
from producer.results import RowOutcome
from producer.settings import ProducerSettings
from tests.unit.fakes import vector_of

BROKEN = "broken"
"""A text that begins so fails in the worker."""


class Crash(BaseException):
    """The end of a process, as far as the code under test can tell."""


@dataclass
class Fate:
    """Ends the process at step number `at`; everything that a run does with the world is a step."""

    at: int = -1
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps - 1 == self.at:
            raise Crash


@dataclass
class MemorySource:
    """Records out of a list; what is no dict is spoilt."""

    items: Sequence[Any]
    name: str = "memory"
    unique_ids: bool = True
    version: int = 1

    def check(self) -> None:
        pass

    def fingerprint(self) -> Json:
        return self.version

    def usual_template(self) -> str:
        return ""

    def count(self, where: Conditions) -> int | None:
        return None if where else len(self.items)

    def close(self) -> None:
        pass

    def records(self, where: Conditions, after: Json = None) -> Iterator[Record | Spoilt]:
        for number, item in enumerate(self.items[after or 0 :], (after or 0) + 1):
            place = f"memory row {number}"
            if not isinstance(item, dict):
                yield Spoilt(reason="is no object", position=number, place=place)
            elif where.fit(item):
                yield Record(id=item["id"], fields=item, position=number, place=place)


@dataclass
class MemorySink:
    """What was written, durably; visible once it is finished. An ordered one is cut at a mark, like a file."""

    ordered: bool
    fate: Fate = field(default_factory=Fate)
    name: str = "sink"
    resumable: bool = True
    rows: list[Embedded] = field(default_factory=list)
    visible: bool = False
    written: int = 0
    """Rows written, over all starts."""

    writes: int = 0

    totals: Totals | None = None

    def check(self, space: Space, *, resuming: bool, overwrite: bool) -> None:
        pass

    def begin(self, space: Space, mark: Json = None) -> None:
        self.fate.step()
        if mark is None:
            self.rows.clear()
        elif self.ordered:
            del self.rows[mark:]

    def write(self, rows: Sequence[Embedded]) -> Json:
        self.fate.step()
        self.writes += 1
        for row in rows:
            self.rows.append(row)
            self.written += 1
        self.fate.step()
        return len(self.rows)

    def finish(self, totals: Totals, embed: Embed) -> str:
        self.fate.step()
        self.visible, self.totals = True, totals
        self.fate.step()
        return "all of it"

    def close(self) -> None:
        pass

    @property
    def collection(self) -> dict[str | int, tuple[str, list[float]]]:
        """By identity, as a store would hold it."""
        return {row.record.id: (row.text, row.vector.tolist()) for row in self.rows}


class FakeProducer:
    """Answers rows in an order of its own, none of them `window` rows ahead of one that is open."""

    def __init__(self, seed: int, fate: Fate | None = None) -> None:
        self.settings = ProducerSettings(embed_model="offline")
        self._random = random.Random(seed)
        self._fate = fate or Fate()
        self.sent: list[str] = []
        self.most_open = 0

    def queue_state(self, task: str) -> Any:
        return SimpleNamespace(tag="tag", card=SimpleNamespace(dimension=len(vector_of(""))), counters={}, workers=())

    def embed_many(self, texts: Sequence[str], kind: str) -> Any:
        raise AssertionError("the sink in memory checks nothing")

    def iter_outcomes(self, texts: Iterable[str], kind: str, *, window: int) -> Iterator[RowOutcome]:
        source, waiting, first, taken = iter(texts), dict[int, str](), 0, 0
        while True:
            while taken - first < window and (text := next(source, None)) is not None:
                waiting[taken] = text
                taken += 1
                self.sent.append(text)
            if not waiting:
                return
            self._fate.step()
            index = self._random.choice(list(waiting))
            text = waiting.pop(index)
            first = min(waiting, default=taken)
            if text.startswith(BROKEN):
                failed = RowFailed(f"a worker could not compute text {index}", code="model_failed")
                yield RowOutcome(index=index, vector=None, error=failed, cached=False)
            else:
                yield RowOutcome(index=index, vector=vector_of(text), error=None, cached=index % 3 == 0)


def records(count: int) -> list[dict[str, Any]]:
    """Records `{"id", "text", "user"}`, every seventh of two users."""
    return [{"id": f"r{number}", "text": f"text {number}", "user": number % 7} for number in range(count)]


def start(source: MemorySource, sink: MemorySink, folder: Path, *, seed: int = 1, **order: Any) -> Outcome:
    """Call `reembed` once; the sink's fate is the process's."""
    producer = cast(Producer, FakeProducer(seed, sink.fate))
    return reembed(producer, source, sink, Order(**order), state_dir=folder)
