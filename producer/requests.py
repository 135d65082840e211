"""Checks and cleans what callers pass: texts, kinds, documents, scores. Pure functions; the first error wins."""

import math
from collections.abc import Iterable, Iterator, Sequence
from numbers import Real
from typing import TypeVar

from producer.errors import InvalidRequest, InvalidText
from producer.wire.keys import Kind, normalise
from producer.wire.messages import Row
from producer.wire.searches import MOST_HITS

Item = TypeVar("Item")

MAX_DOCUMENTS = 1000

_MOST_USER_BYTES = 256

_TEXT_KINDS = {kind.value: kind for kind in (Kind.QUERY, Kind.PASSAGE)}

_LONGEST_S = 1e9
"""Far beyond what the wire carries, and far below what a float or a clock cannot hold."""


def clean_text(text: object, max_bytes: int, what: str = "text", position: int | None = None) -> str:
    """Return the text as it will travel; errors name it by `what` and its position, if it has one.

    Raises:
        InvalidText: not a string, empty or blank, not encodable (lone surrogates), or too long.
    """
    if not isinstance(text, str):
        raise InvalidText(
            f"{_name(what, position)} must be a string, not {type(text).__name__}",
            code="not_text",
        )
    cleaned = normalise(text)
    if not cleaned:
        raise InvalidText(
            f"{_name(what, position)} is empty: pass at least one character that is not white space",
            code="empty_text",
        )
    try:
        size = len(cleaned) if cleaned.isascii() else len(cleaned.encode())
    except UnicodeEncodeError as error:
        raise InvalidText(
            f"{_name(what, position)} is not valid Unicode (a lone surrogate at character {error.start}): it must be "
            "decoded as UTF-8",
            code="not_unicode",
        ) from None
    if size > max_bytes:
        raise InvalidText(
            f"{_name(what, position)} is {size} bytes long, the limit is {max_bytes}: shorten it, or raise "
            "HEADRACE_MAX_TEXT_BYTES for producers and workers",
            code="text_too_long",
        )
    return cleaned


def _name(what: str, position: int | None) -> str:
    return what if position is None else f"{what} {position}"


def clean_texts(texts: Iterable[str], max_bytes: int, *, first: int = 0) -> list[str]:
    """Clean the texts of an embed request; errors name the text by its position, counted from `first`."""
    return [
        clean_text(text, max_bytes, "text", position) for position, text in enumerate(as_list(texts, "texts"), first)
    ]


def text_rows(texts: Iterable[str], kind: str, max_bytes: int, *, first: int = 0) -> list[Row]:
    """Make the rows of an embed request."""
    checked = text_kind(kind)
    return [Row(kind=checked, text=text) for text in clean_texts(texts, max_bytes, first=first)]


def as_iterator(texts: Iterable[str]) -> Iterator[str]:
    """Take any iterable as an iterator, but not one string, whose characters nobody means."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Iterable):
        raise InvalidRequest(f"texts must be an iterable of strings, not {type(texts).__name__}")
    return iter(texts)


def as_list(values: Iterable[Item], what: str, *, code: str | None = None) -> list[Item]:
    """Take any iterable as a list, but not one string, whose characters nobody means."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise InvalidRequest(f"{what} must be a list, not {type(values).__name__}", code=code)
    return list(values)


def text_kind(kind: str) -> Kind:
    """Read the kind of a text: "query" or "passage"."""
    checked = _TEXT_KINDS.get(kind) if isinstance(kind, str) else None
    if checked is None:
        raise InvalidRequest(f"kind must be 'query' or 'passage', not {kind!r}", code="unknown_kind")
    return checked


def pair_rows(query: str, documents: Sequence[str], max_bytes: int) -> list[Row]:
    """Make the rows of a rerank request, one for each document, in order."""
    documents = as_list(documents, "documents")
    if len(documents) > MAX_DOCUMENTS:
        raise InvalidRequest(
            f"{len(documents)} documents are too many for one rerank, the limit is {MAX_DOCUMENTS}",
            code="too_many_documents",
        )
    cleaned_query = clean_text(query, max_bytes, what="query")
    return [
        Row(
            kind=Kind.PAIR,
            query=cleaned_query,
            text=clean_text(document, max_bytes, "document", position),
        )
        for position, document in enumerate(documents)
    ]


def check_limit(limit: int) -> None:
    """Refuse a search for no results, or for more than its cache holds."""
    if type(limit) is not int or not 1 <= limit <= MOST_HITS:
        raise InvalidRequest(f"limit must be a whole number from 1 to {MOST_HITS}, not {limit!r}", code="bad_limit")


def check_user_id(user_id: str | int) -> None:
    """Refuse a user id that is neither a string nor a whole number, or is empty, long or not Unicode."""
    fits = isinstance(user_id, str | int) and not isinstance(user_id, bool)
    try:
        size = len(str(user_id).encode()) if fits else 0
    except ValueError:  # a lone surrogate, or a number of thousands of digits
        size = 0
    if not 0 < size <= _MOST_USER_BYTES:
        raise InvalidRequest(
            f"user_id must be a whole number or a string of 1 to {_MOST_USER_BYTES} bytes", code="bad_user_id"
        )


def check_top_n(top_n: int | None) -> None:
    """Refuse a cut that would return nothing."""
    if top_n is not None and (type(top_n) is not int or top_n < 1):
        raise InvalidRequest(f"top_n must be a whole number of 1 or more, not {top_n!r}", code="bad_top_n")


def check_window(window: int) -> None:
    """Refuse a window that holds no row."""
    if type(window) is not int or window < 1:
        raise InvalidRequest(f"window must be a whole number of 1 or more, not {window!r}")


def check_fallback(scores: Iterable[float] | None, documents: Sequence[str]) -> list[float] | None:
    """Take the fallback scores: one finite number for each document, or None."""
    if scores is None:
        return None
    taken = as_list(scores, "fallback_scores", code="bad_fallback_scores")
    if len(taken) != len(documents):
        raise InvalidRequest(
            f"fallback_scores has {len(taken)} scores for {len(documents)} documents", code="bad_fallback_scores"
        )
    try:
        numbers = [float(score) if isinstance(score, Real) else math.nan for score in taken]
    except OverflowError:
        numbers = [math.inf]
    if not all(math.isfinite(number) for number in numbers):
        raise InvalidRequest("fallback_scores must be finite numbers", code="bad_fallback_scores")
    return numbers


def check_timeout(timeout_s: float) -> float:
    """Refuse a timeout that is not a positive number of seconds."""
    if not (isinstance(timeout_s, int | float) and 0 < timeout_s <= _LONGEST_S):
        raise InvalidRequest(f"timeout_s must be a positive number of seconds, not {timeout_s!r}", code="bad_timeout")
    return float(timeout_s)
