"""What callers may not pass: each case with its class and code, at the exact limits."""

import math
from typing import Any

import numpy as np
import pytest

from producer import requests
from producer.errors import InvalidRequest, InvalidText
from producer.wire.keys import Kind

LIMIT = 64 * 1024


def code_of(error: pytest.ExceptionInfo[InvalidRequest]) -> str:
    return error.value.code


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "not_text"),
        (7, "not_text"),
        (1.5, "not_text"),
        (True, "not_text"),
        (b"bytes", "not_text"),
        (bytearray(b"bytes"), "not_text"),
        (["text"], "not_text"),
        ({"text": "x"}, "not_text"),
        (math.nan, "not_text"),
        ("", "empty_text"),
        (" ", "empty_text"),
        ("\r\n\t\v\f", "empty_text"),
        ("\u00a0\u2003\u3000\u2028", "empty_text"),
        ("a\ud800b", "not_unicode"),
        ("\udcff", "not_unicode"),
        ("\ude00\ud83d", "not_unicode"),
        ("a" * (LIMIT + 1), "text_too_long"),
        ("é" * (LIMIT // 2) + "a", "text_too_long"),
        ("😀" * (LIMIT // 4) + "a", "text_too_long"),
    ],
)
def test_texts_that_no_model_should_see(text: object, code: str) -> None:
    with pytest.raises(InvalidText) as caught:
        requests.clean_text(text, LIMIT)
    assert code_of(caught) == code


@pytest.mark.parametrize("text", ["a" * LIMIT, "é" * (LIMIT // 2), "😀" * (LIMIT // 4), "\n" + "a" * LIMIT + "\r\n"])
def test_a_text_of_exactly_the_limit_in_utf8_bytes_passes(text: str) -> None:
    assert requests.clean_text(text, LIMIT) == text.strip()


def test_a_text_is_cleaned_and_nothing_else_is_changed() -> None:
    assert requests.clean_text("\tThe Apple\r\nfalls  \n", LIMIT) == "The Apple falls"


def test_an_error_names_the_text_by_its_position_and_does_not_quote_it() -> None:
    with pytest.raises(InvalidText) as caught:
        requests.text_rows(["fine", "secret" * LIMIT], "query", LIMIT, first=500)
    assert str(caught.value).startswith("text 501 is ")
    assert "secret" not in str(caught.value)


def test_texts_become_rows_in_order() -> None:
    rows = requests.text_rows(["b ", "a", "b"], "passage", LIMIT)

    assert [(row.kind, row.text, row.query) for row in rows] == [
        (Kind.PASSAGE, "b", None),
        (Kind.PASSAGE, "a", None),
        (Kind.PASSAGE, "b", None),
    ]


@pytest.mark.parametrize("texts", ["one string", b"bytes"])
def test_one_string_is_not_a_list_of_texts(texts: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        requests.text_rows(texts, "query", LIMIT)
    assert (type(caught.value), code_of(caught)) == (InvalidRequest, "invalid_request")


@pytest.mark.parametrize("texts", [None, 7, 1.5])
def test_what_is_no_list_of_texts_is_an_invalid_request(texts: Any) -> None:
    with pytest.raises(InvalidRequest):
        requests.text_rows(texts, "query", LIMIT)


@pytest.mark.parametrize("kind", ["pair", "Query", "", "queries", None, 1, b"query", ["query"]])
def test_kinds_are_query_and_passage_only(kind: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        requests.text_rows(["a"], kind, LIMIT)
    assert code_of(caught) == "unknown_kind"


def test_documents_become_pairs_in_order() -> None:
    rows = requests.pair_rows(" where? ", ["here\n", "there"], LIMIT)

    assert [(row.kind, row.query, row.text) for row in rows] == [
        (Kind.PAIR, "where?", "here"),
        (Kind.PAIR, "where?", "there"),
    ]


def test_no_documents_are_no_pairs() -> None:
    assert requests.pair_rows("q", [], LIMIT) == []


def test_1000_documents_pass_and_1001_do_not() -> None:
    assert len(requests.pair_rows("q", ["d"] * 1000, LIMIT)) == 1000
    with pytest.raises(InvalidRequest) as caught:
        requests.pair_rows("q", ["d"] * 1001, LIMIT)
    assert code_of(caught) == "too_many_documents"


@pytest.mark.parametrize("documents", ["one string", b"bytes", None, 7])
def test_what_is_no_list_of_documents_is_an_invalid_request(documents: Any) -> None:
    with pytest.raises(InvalidRequest):
        requests.pair_rows("q", documents, LIMIT)


@pytest.mark.parametrize(
    ("query", "documents", "code", "named"),
    [
        ("", ["d"], "empty_text", "query"),
        (None, ["d"], "not_text", "query"),
        ("q" * 11, ["d"], "text_too_long", "query"),
        ("q", ["d", " "], "empty_text", "document 1"),
        ("q", ["d", "d", None], "not_text", "document 2"),
        ("q", ["é" * 6], "text_too_long", "document 0"),
        ("q", ["\ud800"], "not_unicode", "document 0"),
        ("", [], "empty_text", "query"),
    ],
)
def test_bad_queries_and_documents(query: Any, documents: Any, code: str, named: str) -> None:
    with pytest.raises(InvalidText, match=named) as caught:
        requests.pair_rows(query, documents, 10)
    assert code_of(caught) == code


@pytest.mark.parametrize("top_n", [0, -1, True, False, 1.5, 1.0, "1", math.nan, [1]])
def test_top_n_is_a_whole_number_of_1_or_more(top_n: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        requests.check_top_n(top_n)
    assert code_of(caught) == "bad_top_n"


@pytest.mark.parametrize("top_n", [None, 1, 10, 10**9])
def test_any_other_top_n_passes(top_n: int | None) -> None:
    requests.check_top_n(top_n)


@pytest.mark.parametrize(
    "scores", [[], [1.0], [1.0, 2.0, 3.0], [1.0, math.nan], [math.inf, 1.0], [1.0, "a"], [None, 1.0], 5]
)
def test_fallback_scores_are_one_finite_number_for_each_document(scores: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        requests.check_fallback(scores, ["a", "b"])
    assert code_of(caught) == "bad_fallback_scores"


def test_good_fallback_scores_pass() -> None:
    requests.check_fallback(None, ["a"])
    requests.check_fallback([], [])
    requests.check_fallback([-1, 0.5], ["a", "b"])
    requests.check_fallback(np.array([0.1, 0.2], dtype=np.float32), ["a", "b"])


@pytest.mark.parametrize("timeout_s", [0, -1, math.nan, math.inf, -math.inf, "5", None, [5]])
def test_a_timeout_is_a_positive_finite_number(timeout_s: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        requests.check_timeout(timeout_s)
    assert code_of(caught) == "bad_timeout"


@pytest.mark.parametrize("timeout_s", [0.001, 1, 30.5, np.float64(2.0)])
def test_a_good_timeout_comes_back_as_a_float(timeout_s: float) -> None:
    assert requests.check_timeout(timeout_s) == float(timeout_s)
    assert type(requests.check_timeout(timeout_s)) is float
