"""The short way of `embed`: what one look at the reply keys shows, and what takes the long way with it."""

from typing import Any

import numpy as np
import pytest

from producer.core import Core, Glance
from producer.errors import InvalidRequest, InvalidText, ResultTimeout, RowFailed
from producer.wire.codec import encode_reply, encode_vector
from producer.wire.messages import EmbeddingReply, Reply, Row, ScoreReply
from producer.wire.signing import Seal
from tests.unit.fakes import EMBED_QUEUE, FakeServer, ManualClock, failure, nobody, offline_core, passage

DIMENSION = 384
CACHE_KEY = "a key of 16 characters"


def wide(row: Row) -> Reply:
    """A vector as long as those of real models: shorter ones always take the long way."""
    return encode_vector(np.full(DIMENSION, len(row.text), dtype=np.float32))


@pytest.fixture
def core(clock: ManualClock) -> Core:
    return offline_core(clock)


def at(core: Core, *texts: str) -> Glance:
    return core.glance(texts, "passage", None)


def test_what_is_cached_is_read_at_one_glance_in_order_and_can_be_written(core: Core) -> None:
    glance = at(core, "aaa", " a\n", "aaa")

    vectors = core.seen(glance, [encode_reply(wide(passage(text))) for text in glance.texts])

    assert glance.keys == tuple(EMBED_QUEUE.reply(passage(text).digest) for text in ("aaa", "a", "aaa"))
    assert vectors is not None
    assert vectors.shape == (3, DIMENSION)
    assert vectors.dtype == np.float32
    assert vectors[:, 0].tolist() == [3, 1, 3]
    vectors += 1


@pytest.mark.parametrize(
    "stored",
    [
        None,
        b"",
        b"rubbish",
        encode_reply(wide(passage("a")))[:-4],
        encode_reply(EmbeddingReply(vector=bytes(4 * DIMENSION + 4))),
        encode_reply(EmbeddingReply(vector=bytes(16))),
        encode_reply(ScoreReply(score=0.5)),
        encode_reply(failure()),
    ],
    ids=["nothing", "no bytes", "rubbish", "cut", "another dimension", "short", "a score", "a failure"],
)
def test_anything_else_takes_the_long_way(core: Core, stored: bytes | None) -> None:
    good = encode_reply(wide(passage("a")))

    assert core.seen(at(core, "a", "b"), [good, stored]) is None
    assert core.seen(at(core, "b", "a"), [stored, good]) is None


def test_only_what_verifies_is_seen(clock: ManualClock) -> None:
    core, value = offline_core(clock, cache_key=CACHE_KEY), encode_reply(wide(passage("a")))
    glance = at(core, "a")
    signed = Seal(CACHE_KEY).close(glance.keys[0], value)

    assert core.seen(glance, [signed]) is not None
    assert core.seen(at(core, "b"), [signed]) is None
    assert core.seen(glance, [value]) is None


def test_the_long_way_computes_what_is_missing_and_looks_nothing_up_twice(clock: ManualClock, core: Core) -> None:
    server = FakeServer(clock, work=wide)
    glance = at(core, "hit", "miss!", "hit", "miss!")
    hit = encode_reply(wide(passage("hit")))

    vectors = server.run(core.embed_missing(glance, [hit, None, hit, None]))

    assert vectors[:, 0].tolist() == [3, 5, 3, 5]
    assert server.sent == ["miss!"]
    assert server.lookups == [1], "only for the one that was computed"
    assert server.counts == [(1, 1)]


def test_an_old_failure_does_not_fail_the_call_but_a_new_one_does(clock: ManualClock, core: Core) -> None:
    old = encode_reply(failure(at_ms=1))

    assert FakeServer(clock, work=wide).run(core.embed_missing(at(core, "a"), [old])).shape == (1, DIMENSION)
    with pytest.raises(RowFailed):
        FakeServer(clock, work=lambda row: failure(at_ms=2)).run(core.embed_missing(at(core, "a"), [old]))


def test_the_time_of_the_glance_counts(clock: ManualClock, core: Core) -> None:
    glance = core.glance(["a"], "query", 5.0)
    clock.advance(4.0)
    began = clock()

    with pytest.raises(ResultTimeout, match="within 5 s"):
        FakeServer(clock, work=nobody).run(core.embed_missing(glance, [None]))

    assert clock() - began == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((["a", ""], "query", None), InvalidText),
        ((["a", 7], "query", None), InvalidText),
        ((["a"], "pair", None), InvalidRequest),
        ((["a"], ["query"], None), InvalidRequest),
        ((["a"], "query", -1.0), InvalidRequest),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_looked_at(core: Core, arguments: Any, error: type) -> None:
    with pytest.raises(error):
        core.glance(*arguments)
