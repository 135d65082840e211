"""Helpers of the tests of rows in flight."""

from producer.flight import Flight
from producer.wire.keys import Lane
from producer.wire.messages import Row
from producer.wire.signing import Seal
from tests.unit.fakes import EMBED_QUEUE, WIDE, FakeServer, ManualClock, passage


def flight(clock: ManualClock, lane: Lane = Lane.INTERACTIVE) -> Flight:
    return Flight(queue=EMBED_QUEUE, lane=lane, limit=WIDE, seal=Seal(), clock=clock)


def rows(*texts: str) -> list[Row]:
    return [passage(text) for text in texts]


def finish(server: FakeServer, one: Flight, *, steps: int = 50) -> None:
    for _ in range(steps):
        if not one.pending:
            return
        server.run(one.advance(server.clock() + 60.0))
    raise AssertionError(f"rows still pending after {steps} steps: {list(one.pending.values())}")
