"""The encoding of dead letters: golden bytes, what is kept of a job, and that no bytes can do harm."""

import random

import pytest

from producer.settings import ProducerSettings
from producer.wire.codec import MAX_BUDGET_MS
from producer.wire.keys import Kind, Lane
from producer.wire.letters import MAX_PAYLOAD_BYTES, decode_letter, encode_letter
from producer.wire.messages import DeadLetter, Job, JobHeader, Row
from tests.unit.fakes import pair, passage
from tests.unit.letters import job_fields, letter_of

HEADER = b"\x83\xa1v\x01\xa4kind\xa7passage\xa9budget_ms\xcdu0"
GOLDEN = [
    (b"dead:code", b"model_failed"),
    (b"dead:reason", b"the model raised ValueError"),
    (b"dead:worker", b"host/0"),
    (b"dead:lane", b"bulk"),
    (b"dead:entry", b"1763900000000-7"),
    (b"dead:deliveries", b"3"),
    (b"job", HEADER),
    (b"0", "ein Bächlein".encode()),
]
LETTER = DeadLetter(
    id="1763900005000-0",
    code="model_failed",
    reason="the model raised ValueError",
    worker="host/0",
    lane=Lane.BULK,
    entry_id="1763900000000-7",
    enqueued_at_ms=1_763_900_000_000,
    died_at_ms=1_763_900_005_000,
    deliveries=3,
    payload_bytes=3 + len(HEADER) + 1 + 13,
    job=Job(header=JobHeader(kind=Kind.PASSAGE, budget_ms=30_000), rows=(Row(kind=Kind.PASSAGE, text="ein Bächlein"),)),
    unreadable=None,
)


def test_the_fields_of_version_1_are_fixed() -> None:
    fields = encode_letter(
        code="model_failed",
        reason="the model raised ValueError",
        worker="host/0",
        lane=Lane.BULK,
        entry_id=b"1763900000000-7",
        deliveries=3,
        fields=dict(GOLDEN[6:]),
    )

    assert list(fields.items()) == GOLDEN


def test_the_golden_fields_read_back() -> None:
    assert decode_letter(b"1763900005000-0", dict(GOLDEN)) == LETTER


def test_a_letter_without_a_count_was_tried_once() -> None:
    fields = {name: value for name, value in GOLDEN if name != b"dead:deliveries"}

    assert decode_letter(b"1763900005000-0", fields).deliveries == 1


def test_the_largest_row_that_a_pool_takes_by_default_is_kept_whole() -> None:
    largest = "x" * ProducerSettings().max_text_bytes
    job = job_fields(pair(largest, largest))
    fields = letter_of(pair(largest, largest))
    spare = MAX_PAYLOAD_BYTES - sum(len(name) + len(value) for name, value in job.items())

    assert fields.items() >= job.items()
    assert spare > len(str(MAX_BUDGET_MS)), "the longest budget fits, too"
    assert decode_letter(b"1-0", fields).job is not None


def test_a_larger_job_is_left_out_with_its_size() -> None:
    rows = [pair("d" * 2000 + str(number)) for number in range(100)]
    fields = letter_of(*rows)

    letter = decode_letter(b"1-0", fields)

    size = sum(len(name) + len(value) for name, value in job_fields(*rows).items())
    assert fields[b"dead:left_out"] == b"%d" % size
    assert b"job" not in fields
    assert (letter.job, letter.payload_bytes) == (None, size)
    assert letter.unreadable == f"its job was left out, it was {size} bytes long"
    assert (letter.code, letter.lane) == ("model_failed", Lane.INTERACTIVE)


def test_an_entry_cannot_write_the_fields_that_say_why_it_died() -> None:
    fields = encode_letter(
        code="malformed_message",
        reason="unknown stream fields",
        worker="host/0",
        lane=Lane.BULK,
        entry_id=b"1-0",
        deliveries=1,
        fields={b"dead:code": b"fine", b"dead:new": b"x", b"other": b"y"},
    )

    assert fields[b"dead:code"] == b"malformed_message"
    assert fields.keys() - {b"other"} == {name for name, _ in GOLDEN[:6]}


def test_text_that_cannot_be_encoded_is_no_reason_to_lose_a_letter() -> None:
    fields = encode_letter(
        code="c", reason="\ud800", worker="h\udc80", lane=Lane.BULK, entry_id=b"\xff", deliveries=1, fields={}
    )

    letter = decode_letter(b"1-0", fields)

    assert (letter.reason, letter.worker, letter.enqueued_at_ms) == ("?", "h?", None)
    assert letter.unreadable == "it holds no job"


def test_a_foreign_letter_is_read_as_far_as_it_can_be() -> None:
    letter = decode_letter(b"5-1", {b"dead:lane": b"express", b"dead:reason": b"\xff!", b"dead:deliveries": b"-3"})

    assert letter == DeadLetter(
        id="5-1",
        code="",
        reason="\ufffd!",
        worker="",
        lane=None,
        entry_id="",
        enqueued_at_ms=None,
        died_at_ms=5,
        deliveries=1,
        payload_bytes=0,
        job=None,
        unreadable="it holds no job",
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({b"0": b"text"}, "no job header"),
        ({b"job": b"\xc1", b"0": b"text"}, "not msgpack"),
        ({b"job": HEADER}, "1 to 100 rows"),
        ({b"job": HEADER, b"0": b"\xff"}, "UTF-8"),
        ({b"job": HEADER.replace(b"v\x01", b"v\x02"), b"0": b"text"}, "protocol version 2"),
    ],
)
def test_a_job_that_cannot_be_read_leaves_a_reason_and_its_size(fields: dict[bytes, bytes], reason: str) -> None:
    letter = decode_letter(b"5-1", {**dict(GOLDEN[:6]), **fields})

    assert letter.job is None
    assert reason in (letter.unreadable or "")
    assert letter.payload_bytes == sum(len(name) + len(value) for name, value in fields.items())


def test_no_bytes_at_all_raise() -> None:
    chance = random.Random(7)
    names = [name for name, _ in GOLDEN] + [b"dead:left_out", b"1"]
    for _ in range(3000):
        fields = {
            chance.choice([*names, chance.randbytes(3)]): chance.choice(
                [chance.randbytes(chance.randrange(12)), b"9" * 5000, _damaged(chance, HEADER), b"1-1"]
            )
            for _ in range(chance.randrange(9))
        }
        letter = decode_letter(chance.choice([b"1-1", b"", b"9" * 5000 + b"-1", chance.randbytes(4)]), fields)
        assert (letter.job is None) == (letter.unreadable is not None)


def test_a_damaged_letter_raises_nothing_either() -> None:
    chance = random.Random(8)
    for _ in range(3000):
        decode_letter(b"1-1", {_damaged(chance, name): _damaged(chance, value) for name, value in GOLDEN})


def _damaged(chance: random.Random, data: bytes) -> bytes:
    """The same bytes with one of them changed, sometimes."""
    position = chance.randrange(2 * len(data))
    return data[:position] + chance.randbytes(1) + data[position + 1 :] if position < len(data) else data


def test_a_text_is_not_told_by_the_reason_that_a_letter_is_unreadable() -> None:
    fields = {**letter_of(passage("secret")), b"2": b"secret"}

    assert "secret" not in (decode_letter(b"1-1", fields).unreadable or "secret")
