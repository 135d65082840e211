"""The thread beside the model, beat by beat: what it renews and what not, and what keeps it from nothing."""

import time
from typing import Any

import pytest
import redis

from producer.wire import scripts
from producer.wire.codec import decode_message
from producer.wire.keys import GROUP, Lane
from producer.wire.messages import EntrySize, Heartbeat
from tests.unit.engine import send
from tests.unit.fakes import EMBED_QUEUE, query
from workers.ledger import Ledger
from workers.progress import Progress
from workers.pulse import Pulse
from workers.streams import Streams

STREAM = EMBED_QUEUE.lane(Lane.INTERACTIVE)
LEASE_S, LIMIT_S = 8.0, 120.0


class Beating:
    """A worker with one entry in hand, whose pulse beats when told."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.ledger, self.progress = Ledger(), Progress()
        self.left = 0
        self.parent_alive = True
        self.pulse = Pulse(
            client=client,
            queue=EMBED_QUEUE,
            name="worker",
            model="offline",
            ledger=self.ledger,
            progress=self.progress,
            card_ttl_s=60,
            lease_s=LEASE_S,
            batch_limit_s=LIMIT_S,
            parent_alive=lambda: self.parent_alive,
            leave=self._leave,
            is_stopping=lambda: False,
        )
        send(client, query("a"))
        streams = Streams(client, EMBED_QUEUE, "worker")
        streams.prepare()
        (entry,) = streams.read_new({Lane.INTERACTIVE: 1})
        self.ledger.open(Lane.INTERACTIVE, EntrySize(id=entry.id, rows=1, size_bytes=1), [b"digest"])
        client.xclaim(STREAM, GROUP, "worker", 0, [entry.id], idle=60_000, justid=True)

    def _leave(self) -> None:
        self.left += 1
        self.pulse._closing.set()

    @property
    def renewed(self) -> bool:
        pending: Any = self.client.xpending_range(STREAM, GROUP, "-", "+", 1)
        return bool(pending[0]["time_since_delivered"] < 30_000)

    def beat(self) -> None:
        """Beat once."""
        self.pulse._closing.clear()
        self.pulse._closing.wait = lambda timeout=None: self.pulse._closing.set() or True  # type: ignore[func-returns-value, method-assign]
        self.pulse._beat_until_closed()


@pytest.fixture
def beating(client: redis.Redis) -> Beating:
    return Beating(client)


def test_what_is_in_hand_is_renewed_with_every_beat(beating: Beating) -> None:
    with beating.progress.vitals.working():
        beating.beat()

    assert beating.renewed
    assert not beating.ledger.forfeited


def test_a_model_that_hangs_is_not_renewed(beating: Beating) -> None:
    beating.progress.vitals._model_since_s.value = time.monotonic() - LIMIT_S - 1

    beating.beat()

    assert not beating.renewed


def test_who_stood_still_for_longer_than_the_lease_takes_nothing_back(beating: Beating) -> None:
    beating.pulse._renewed_at_s -= LEASE_S + 1

    beating.beat()

    assert not beating.renewed
    assert beating.ledger.forfeited


def test_a_counter_that_somebody_spoilt_keeps_no_other_from_being_counted_once(beating: Beating) -> None:
    beating.client.hset(EMBED_QUEUE.stats, "rows", "many")
    beating.progress.count(rows=2, batches=1)

    for _ in range(3):
        beating.beat()

    assert beating.client.hgetall(EMBED_QUEUE.stats) == {b"rows": b"many", b"batches": b"1"}


def test_no_part_of_a_beat_keeps_the_others_from_theirs(
    beating: Beating, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise KeyError("something that nobody thought of")

    for part in ("_send_heartbeat", "_send_counters", "_keep_scripts"):
        monkeypatch.setattr(beating.pulse, part, fail)
    beating.beat()

    assert beating.renewed
    assert caplog.text.count("a part of the heartbeat failed: KeyError") == 3
    assert "nobody thought" not in caplog.text


def test_scripts_that_redis_has_forgotten_are_loaded_again(beating: Beating) -> None:
    beating.client.script_flush()
    beating.beat()

    assert all(beating.client.script_exists(*(script.sha for script in scripts.ALL)))


def test_an_orphan_leaves(beating: Beating) -> None:
    beating.parent_alive = False
    beating.beat()

    assert beating.left == 1


def test_a_heartbeat_tells_the_limit_of_a_batch(beating: Beating) -> None:
    beating.beat()

    beat: Any = beating.client.hget(EMBED_QUEUE.workers, "worker")
    assert decode_message(Heartbeat, beat).batch_limit_ms == 120_000
