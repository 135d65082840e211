"""Points: ids that stay the same, payloads that any server takes; patience with a store; samples."""

import datetime
import json
import math

import pytest

from producer import StoreUnavailable
from producer.bulk.patience import Patience
from producer.bulk.qdrant_points import point_id, point_of, requests_of
from producer.bulk.verification import SAMPLE, Sample
from tests.unit.qdrant_stores import embedded, rows

HEX = "6f4b3c1e9d2a5e878c402b7d1a9e5f36"
UUID_TEXT = "6f4b3c1e-9d2a-5e87-8c40-2b7d1a9e5f36"


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (0, 0),
        (2**64 - 1, 2**64 - 1),
        (UUID_TEXT, UUID_TEXT),
        (UUID_TEXT.upper(), UUID_TEXT),
        (HEX, UUID_TEXT),
        # Golden values: another id for the same record would double it in every collection there is.
        ("42", "dc9c898e-18d7-530b-9d66-5bca03a36c18"),
        (-1, "62368d43-acbe-542c-bfea-4d7e2c83af79"),
        (2**64, "11b6597f-6d5e-583d-8289-96a5d89f1d50"),
        ("contact-7", "2141e626-51b7-5b4e-ae62-fcc859905dfe"),
        ("Zoë", "c5b49edb-9ba2-5e65-b39e-11060b92b518"),
        ("\ud800", "09fb5cd9-e5e4-5677-94a9-72f3a116aafe"),
        ("", "394b53e2-a301-5689-bcfb-3c620b491d3c"),
    ],
)
def test_ids_never_change(identity: str | int, expected: str | int) -> None:
    assert point_id(identity) == expected


def test_other_identities_have_other_ids() -> None:
    identities: list[str | int] = [42, "42", "042", -42, "-42", "a", "A", "a ", 2**64, str(2**64)]
    assert len({point_id(identity) for identity in identities}) == len(identities)


def test_payloads_are_json_whatever_the_source_gave() -> None:
    fields = {
        "day": datetime.date(2026, 11, 23),
        "nan": math.nan,
        "huge": 2**70,
        "bytes": b"x",
        "broken": ["a\ud800", {"k\ud800": (1, None, True, 2.5)}],
        5: "number",
    }
    point = point_of(embedded(1, "text", nested=fields))
    assert point.payload == {
        "text": "text",
        "nested": {
            "day": "2026-11-23",
            "nan": "nan",
            "huge": str(2**70),
            "bytes": "b'x'",
            "broken": ["a?", {"k?": [1, None, True, 2.5]}],
            "5": "number",
        },
    }
    json.dumps(point.payload, allow_nan=False).encode()


def test_of_two_rows_with_one_id_the_later_one_is_written() -> None:
    (points,) = requests_of([embedded(1, "a"), embedded(2, "b"), embedded(1, "c")])
    assert [(point.id, (point.payload or {})["text"]) for point in points] == [(1, "c"), (2, "b")]


def test_requests_are_small_enough_for_a_server() -> None:
    assert [len(points) for points in requests_of(rows(300))] == [128, 128, 44]
    long = [embedded(number, "x", notes="n" * 3_000_000) for number in range(5)]
    assert [len(points) for points in requests_of(long)] == [2, 2, 1]
    assert [len(points) for points in requests_of([embedded(1, "x", notes="n" * 20_000_000)])] == [1]


class Flaky:
    """A call that fails so often, and a clock that only its waits move."""

    def __init__(self, failures: int, *, code: str | None = None) -> None:
        self.failures = failures
        self.code = code
        self.waits: list[float] = []
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def call(self) -> str:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away", code=self.code)
        return "done"

    def patiently(self, limit_s: float = 60.0) -> str:
        return Patience(limit_s, clock=lambda: self.now, sleep=self.sleep)(self.call)


def test_a_store_that_comes_back_is_waited_for() -> None:
    flaky = Flaky(7)
    assert flaky.patiently() == "done"
    assert flaky.waits == [0.25, 0.5, 1, 2, 4, 5, 5]


def test_a_store_that_stays_away_is_an_error_in_time() -> None:
    flaky = Flaky(1000)
    with pytest.raises(StoreUnavailable):
        flaky.patiently(60)
    assert 50 < flaky.now <= 60


def test_a_refusal_is_not_tried_again() -> None:
    flaky = Flaky(1, code="store_refused")
    with pytest.raises(StoreUnavailable):
        flaky.patiently()
    assert flaky.waits == []


def test_a_sample_is_the_same_however_often_the_run_is_started() -> None:
    def drawn(run: str, *starts: int) -> list[str | int]:
        sample = Sample(run)
        for number in range(1000):
            if number in starts:
                sample = Sample(run, rows=sample.rows, ids=json.loads(json.dumps(sample.ids)))
            sample.add(number)
        return sample.ids

    assert drawn("a") == drawn("a", 5, 40, 999)
    assert drawn("a") != drawn("b")
    assert len(set(drawn("a"))) == SAMPLE


def test_each_row_has_the_same_chance_of_being_in_the_sample() -> None:
    early = 0
    for run in range(200):
        sample = Sample(str(run))
        for number in range(320):
            sample.add(number)
        early += sum(1 for number in sample.ids if int(number) < 160)
    assert 0.47 < early / (200 * SAMPLE) < 0.53
