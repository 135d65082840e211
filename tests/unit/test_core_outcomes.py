"""The flow of iter_outcomes: any order, failures that end nothing, and a window counted from the oldest open row."""

from producer.errors import RowFailed
from producer.ordering import InOrder, Span
from producer.results import RowOutcome
from producer.wire.messages import Reply, Row
from tests.unit.fakes import FakeServer, ManualClock, failure, offline_core, passage, result_of, vector_of

WINDOW = 8


def texts_of(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


def outcomes_of(server: FakeServer, texts: list[str]) -> list[RowOutcome]:
    return list(server.iterate(offline_core(server.clock).iter_outcomes("passage", WINDOW, None), texts))


def test_every_row_has_one_outcome_with_its_number(server: FakeServer) -> None:
    texts = [*texts_of(3 * WINDOW), "text 1", "text 0"]
    outcomes = outcomes_of(server, texts)

    assert sorted(outcome.index for outcome in outcomes) == list(range(len(texts)))
    for outcome in outcomes:
        assert outcome.checked().tolist() == vector_of(texts[outcome.index]).tolist()


def test_a_row_that_fails_ends_nothing(clock: ManualClock) -> None:
    server = FakeServer(clock, work=lambda row: failure(at_ms=9) if row.text == "text 2" else result_of(row))
    failed = [outcome for outcome in outcomes_of(server, texts_of(20)) if outcome.error]

    assert [(outcome.index, outcome.vector, type(outcome.error)) for outcome in failed] == [(2, None, RowFailed)]


def test_what_is_late_is_overtaken_by_a_window_and_not_more(clock: ManualClock) -> None:
    pulled: list[int] = []

    def late_first(row: Row) -> Reply | None:
        if row.text == "text 0":
            pulled.append(server.pulled)
            return result_of(row) if len(pulled) == 3 else None
        return result_of(row)

    server = FakeServer(clock, work=late_first)
    outcomes = outcomes_of(server, texts_of(3 * WINDOW))
    before = [outcome.index for outcome in outcomes].index(0)

    assert 1 <= before < WINDOW
    assert pulled == [WINDOW] * 3


def test_outcomes_say_what_was_cached(server: FakeServer) -> None:
    server.put(passage("text 1"))

    assert {outcome.index: outcome.cached for outcome in outcomes_of(server, texts_of(3))} == {
        0: False,
        1: True,
        2: False,
    }


def test_a_span_reaches_from_the_oldest_open_row() -> None:
    span = Span()
    span.extend(4)
    span.answer(2)
    span.answer(1)
    assert (span.first, span.end, span.rows) == (0, 4, 4)
    span.answer(0)
    assert (span.first, span.rows) == (3, 1)


def test_vectors_are_held_back_until_their_turn() -> None:
    in_order = InOrder()

    def take(index: int) -> list[float]:
        outcome = RowOutcome(index=index, vector=vector_of(str(index)), error=None, cached=False)
        return [float(vector[0]) for vector in in_order.take(outcome)]

    assert take(1) == []
    assert take(0) == [float(vector_of(text)[0]) for text in "01"]


def test_rows_are_taken_while_a_slow_consumer_has_answers_before_it(server: FakeServer) -> None:
    """Workers shall not idle until all that they have answered is taken."""
    outcomes = server.iterate(offline_core(server.clock).iter_outcomes("passage", WINDOW, None), texts_of(3 * WINDOW))
    pulled = []
    for _ in outcomes:
        pulled.append(server.pulled)

    half = WINDOW // 2
    assert pulled[: half + 1] == [WINDOW] * half + [WINDOW + half]
    assert sorted(pulled) == pulled
    assert len(pulled) == pulled[-1] == 3 * WINDOW
