"""The tree of errors: as drawn, with a code for each, and catchable as the built-in ones."""

import inspect
import re

import pytest

import producer
from producer import errors
from producer.errors import HeadraceError, InvalidRequest, ResultTimeout, RowFailed

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]


def drawn_tree() -> dict[str, tuple[str, str | None]]:
    """Read the drawing in the docstring: class to (parent in the tree, built-in parent)."""
    parents: dict[int, str] = {}
    tree: dict[str, tuple[str, str | None]] = {}
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"^([│ ]*)[├└]── (\w+)(?: \((\w+)\))?", line):
            depth = len(match[1]) // 4 + 1
            parents[depth] = match[2]
            tree[match[2]] = (parents[depth - 1], match[3])
        elif re.fullmatch(r"\w+", line):
            parents[0] = line
    return tree


def test_the_drawn_tree_is_the_real_one() -> None:
    real = {
        cls.__name__: (cls.__bases__[0].__name__, cls.__bases__[1].__name__ if len(cls.__bases__) > 1 else None)
        for cls in CLASSES
        if cls is not HeadraceError
    }

    assert drawn_tree() == real
    assert HeadraceError.__bases__ == (Exception,)


def test_all_are_exported_sorted_and_offered_by_the_package() -> None:
    assert errors.__all__ == sorted(cls.__name__ for cls in CLASSES)
    assert set(errors.__all__) <= set(producer.__all__)


def test_every_class_has_a_code_of_its_own() -> None:
    codes = [vars(cls)["code"] for cls in CLASSES]

    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_carries_its_text_and_its_code(cls: type[HeadraceError]) -> None:
    assert str(cls("what to do")) == "what to do"
    assert cls("text").code == cls.code


def test_a_code_given_to_one_error_does_not_change_the_class() -> None:
    special = RowFailed("text", code="text_too_long")

    assert special.code == "text_too_long"
    assert RowFailed("text").code == "row_failed"


def test_callers_may_catch_the_built_in_errors_they_know() -> None:
    assert issubclass(ResultTimeout, TimeoutError)
    assert issubclass(InvalidRequest, ValueError)
