"""Templates: lookup alone, cut values, separators only between values; and what is no template."""

import pytest

from producer import ConfigurationError
from producer.templates import TextTemplate, look_up

CONTACT = "{name} - {jobTitle} - {company} - {notes[:500]}"


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (
            {"name": "Mara", "jobTitle": "hydrologist", "company": "Rivercast", "notes": "n"},
            "Mara - hydrologist - Rivercast - n",
        ),
        ({"name": "Mara", "jobTitle": "hydrologist", "company": "Rivercast"}, "Mara - hydrologist - Rivercast"),
        ({"jobTitle": "hydrologist", "company": None, "notes": "x" * 600}, "hydrologist - " + "x" * 500),
        ({"name": "  ", "notes": ""}, ""),
        ({}, ""),
    ],
)
def test_a_separator_stands_only_between_two_values(record: dict[str, object], text: str) -> None:
    assert TextTemplate(CONTACT).render(record) == text


def test_what_is_around_the_fields_stays_if_there_is_a_value() -> None:
    template = TextTemplate("Name: {name} ({{x}}).")
    assert template.render({"name": "Mara"}) == "Name: Mara ({x})."
    assert template.render({"name": None}) == ""


def test_values_of_other_types_are_shown_as_text() -> None:
    template = TextTemplate("{a} {b} {c} {d.e} {f}")
    assert (
        template.render({"a": 7, "b": [1, None, "x"], "c": True, "d": {"e": 1.5}, "f": {"no": "text"}})
        == "7 1, x true 1.5"
    )


def test_fields_are_named_once_in_order() -> None:
    assert TextTemplate("{b} {a[:3]} {b}").fields == ("b", "a")
    assert TextTemplate.of_fields(["title", "text"]).pattern == "{title} {text}"


def test_a_name_with_a_dot_is_looked_up_whole_first() -> None:
    assert look_up({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert look_up({"a": {"b": 2}}, "a.b") == 2
    assert look_up({"a": 5}, "a.b") is None


@pytest.mark.parametrize(
    "pattern",
    [
        "no field",
        "",
        "{}",
        "{name!r}",
        "{name:>10}",
        "{notes[0]}",
        "{notes[500:]}",
        "{name",
        "name}",
        "{a}{__class__[:x]}",
        "{name}\udcff",
    ],
)
def test_what_is_no_template(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="template"):
        TextTemplate(pattern)


def test_what_is_no_field_is_shown_as_it_was_written() -> None:
    with pytest.raises(ConfigurationError, match=r"^\{name!r:>10\} in the template"):
        TextTemplate("{name!r:>10}")


def test_attributes_cannot_be_reached() -> None:
    assert TextTemplate("{name.__class__}").render({"name": "Mara"}) == ""
