"""What a flow asks of its client: one small class for each kind of effect, and the stepping of a flow.

A flow is a generator: each `yield` is an effect that the client performs, and its answer is sent back in.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from producer.errors import HeadraceError
from producer.wire import scripts
from producer.wire.keys import QueueKeys


@dataclass(frozen=True)
class Lookup:
    """Read reply keys, within `left_s`. Answer: a list of `bytes | None`."""

    keys: tuple[str, ...]
    left_s: float


@dataclass(frozen=True)
class Peek:
    """Read the first bytes of reply keys, which tell results from failures. Answer: a list of bytes, empty for none."""

    keys: tuple[str, ...]


@dataclass(frozen=True)
class Enqueue:
    """Watch for hints of these rows, then run the script, within `left_s`. Answer: its four numbers."""

    digests: tuple[bytes, ...]
    call: Callable[[str], scripts.ScriptCall]
    """Makes the call for a hint channel, which only the client knows."""

    left_s: float


@dataclass(frozen=True)
class Wait:
    """Wait for hints, at most this long. Answer: the set of digests that came."""

    timeout_s: float


@dataclass(frozen=True)
class Unwatch:
    """Hints of these rows are not wanted any more. Answer: None."""

    digests: tuple[bytes, ...]


@dataclass(frozen=True)
class Count:
    """Add to the queue's counters, some time soon. Answer: None."""

    queue: QueueKeys
    hits: int
    misses: int


@dataclass(frozen=True)
class Inspect:
    """Read the state of the queue. Answer: a `QueueState`."""

    queue: QueueKeys


@dataclass(frozen=True)
class ListPools:
    """Read which pools have run. Answer: a map of b"task:tag" to the model's name in bytes."""


@dataclass(frozen=True)
class Pull:
    """Take up to `count` texts from the caller's iterator. Answer: a list, shorter only at the end."""

    count: int


@dataclass(frozen=True)
class Emit:
    """Hand one value to the caller's loop. Answer: None."""

    value: Any


Effect = Lookup | Peek | Enqueue | Wait | Unwatch | Count | Inspect | ListPools | Pull | Emit
Result = TypeVar("Result")
Flow = Generator[Effect, Any, Result]


class Steps(Generic[Result]):
    """Runs a flow step by step: perform `effect`, then `send` its answer or `throw` its error, until it is None."""

    def __init__(self, flow: Generator[Any, Any, Result]) -> None:
        self._flow = flow
        self._result: list[Result] = []
        self.effect: Any = None  # an `Effect`, or one of `producer.search_effects`
        self.send(None)

    @property
    def result(self) -> Result:
        """What the flow returned; there once `effect` is None."""
        return self._result[0]

    def send(self, answer: Any) -> None:
        try:
            self.effect = self._flow.send(answer)
        except StopIteration as stop:
            self._end(stop.value)

    def throw(self, error: HeadraceError) -> None:
        try:
            self.effect = self._flow.throw(error)
        except StopIteration as stop:
            self._end(stop.value)

    def _end(self, result: Result) -> None:
        self.effect = None
        self._result.append(result)
