"""Forms made from schemas: what was not touched comes back exactly as it was, what can't be read is said."""

from __future__ import annotations

from typing import Any

import pytest
from django.template.loader import render_to_string

from frontend.argument_forms import ArgumentForm

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "amount": {"type": "number", "minimum": 0, "description": "How much. <b>Really</b>"},
        "count": {"type": "integer"},
        "currency": {"enum": ["EUR", "USD", 1]},
        "urgent": {"type": "boolean"},
        "note": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "sizes": {"type": "array", "items": {"type": "integer"}},
        "nested": {"type": "object"},
        "maybe": {"type": ["string", "null"]},
    },
    "required": ["amount", "note"],
}
CALL: dict[str, Any] = {
    "amount": 12.5,
    "count": 3,
    "currency": "EUR",
    "urgent": True,
    "note": "two\nlines",
    "tags": ["a", "b c"],
    "sizes": [1, 2],
    "nested": {"deep": [1, {"x": None}]},
    "maybe": None,
    "unknown": ["kept"],
}


def filled(schema: Any, current: dict[str, Any], **changes: str) -> ArgumentForm:
    """The form as a browser sends it back, with some fields typed over; named by argument."""
    blank = ArgumentForm(schema=schema, current=current)
    data = {field.html_name: field.value() for field in blank if field.value() is not None}
    names = {blank.fields[field.html_name].label: field.html_name for field in blank}
    data |= {names[name]: text for name, text in changes.items()}
    return ArgumentForm(data, schema=schema, current=current)


@pytest.mark.parametrize(
    "current",
    [
        CALL,
        {"amount": 1, "note": ""},
        {"amount": "not a number", "note": 7},
        {"amount": 1, "note": " spaces \u202e and \x1b[31m"},
        {"amount": 1, "note": "line\r\nend"},
        {"amount": 1, "note": "x", "tags": ["", "a\nb"], "sizes": [True]},
        {"amount": 1, "note": "x", "currency": "GBP", "maybe": "text"},
        {},
    ],
)
def test_what_nobody_touched_comes_back_as_it_was(current: dict[str, Any]) -> None:
    form = filled(SCHEMA, current)
    if current:
        assert form.is_valid(), form.errors
        assert form.arguments() == current
        assert list(form.arguments()) == list(current)
        assert all(type(form.arguments()[name]) is type(value) for name, value in current.items())
    else:
        assert set(form.errors) == {"arg0"}


def test_values_are_read_as_what_the_schema_says() -> None:
    form = filled(
        SCHEMA, CALL, amount="7", count="-1", currency="1", urgent="false", tags="x\r\n\r\ny ", sizes="5", maybe='"a"'
    )
    assert form.is_valid(), form.errors
    told = form.arguments()
    assert (told["amount"], told["count"], told["currency"], told["urgent"]) == (7, -1, 1, False)
    assert (told["tags"], told["sizes"], told["maybe"]) == (["x", "y "], [5], "a")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("amount", "1e999"),
        ("amount", "NaN"),
        ("amount", "0x10"),
        ("amount", "true"),
        ("amount", "1,5"),
        ("amount", ""),
        ("count", "1.5"),
        ("count", "9" * 40),
        ("currency", '"GBP"'),
        ("urgent", "yes"),
        ("sizes", "1\ntwo"),
        ("nested", '{"a": 1, "a": 2}'),
        ("nested", "{"),
        ("nested", '"\\ud800"'),
    ],
)
def test_what_can_not_be_read_is_said_beside_its_field(name: str, text: str) -> None:
    form = filled(SCHEMA, CALL, **{name: text})
    assert not form.is_valid()
    assert len(form.errors) == 1


def test_optional_values_can_be_left_out_and_required_ones_emptied_only_as_text() -> None:
    form = filled(SCHEMA, CALL, count="", currency="", urgent="", nested="", note="")
    assert form.is_valid(), form.errors
    assert set(form.arguments()) == set(CALL) - {"count", "currency", "urgent", "nested"}
    assert form.arguments()["note"] == ""


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"properties": "none"},
        {"properties": {"note": True}, "required": "note"},
        {"properties": {"note": {"enum": []}}},
        {"properties": {"note": {"type": "array", "items": True}}},
        {"additionalProperties": False},
    ],
)
def test_odd_schemas_give_json_fields_and_lose_nothing(schema: dict[str, Any]) -> None:
    form = filled(schema, {"note": "a", "n": 1})
    assert form.is_valid(), form.errors
    assert form.arguments() == {"note": "a", "n": 1}


@pytest.mark.parametrize("typed", ["", "abc", "240", "240,00"])
def test_a_text_in_another_form_is_answered_with_an_example_and_no_pattern(typed: str) -> None:
    schema = {"properties": {"amount": {"type": "string", "pattern": r"^[0-9]+\.[0-9]{2}$"}}, "required": ["amount"]}
    form = filled(schema, {"amount": "240.00"}, amount=typed)
    assert not form.is_valid()
    assert form.errors["arg0"] == ["Write it in the form that the tool takes, such as 240.00."]
    assert filled(schema, {"amount": "240.00"}, amount="12.50").is_valid()


@pytest.mark.parametrize("pattern", ["(", "(a+)+$", 7])
def test_a_pattern_that_can_not_be_tried_is_left_to_the_gate(pattern: Any) -> None:
    schema = {"properties": {"note": {"type": "string", "pattern": pattern}}}
    form = filled(schema, {"note": "a"}, note="a" * 40)
    assert form.is_valid(), form.errors


def test_names_and_descriptions_of_strangers_stay_text() -> None:
    hostile = '"><script>alert(1)</script>\x1b[31m\u202e'
    schema = {"properties": {hostile: {"type": "string", "description": hostile, "enum": [hostile]}}}
    (field,) = ArgumentForm(schema=schema, current={hostile: hostile})
    html = render_to_string("components/field.html", {"field": field})
    assert "<script>" not in html
    assert 'name="arg0"' in html
    assert not {"\x1b", "\u202e"} & set(html)


@pytest.mark.parametrize(
    ("described", "current", "typed", "said"),
    [
        ({"type": "string", "maxLength": 200}, "late", "y" * 201, "At most 200 characters: this has 201."),
        ({"type": "integer", "minimum": 2}, 3, "1", "At least 2."),
        ({"type": "number", "maximum": 2.5}, 1.0, "2.51", "At most 2.5."),
    ],
)
def test_what_is_beyond_a_limit_is_said_at_its_field(described: Any, current: Any, typed: str, said: str) -> None:
    schema = {"type": "object", "properties": {"value": described}, "required": ["value"]}
    form = ArgumentForm({"arg0": typed}, schema=schema, current={"value": current})
    assert not form.is_valid()
    assert form.errors["arg0"] == [said]
    limit = described.get("maxLength") or described.get("minimum") or described.get("maximum")
    at_the_limit = "y" * limit if "maxLength" in described else str(limit)
    assert ArgumentForm({"arg0": at_the_limit}, schema=schema, current={"value": current}).is_valid()


@pytest.mark.parametrize(
    ("described", "typed"),
    [
        ({"type": "boolean", "minimum": 2}, "true"),
        ({"type": "integer", "minimum": True}, "0"),
        ({"type": "number", "maximum": False}, "0.5"),
        ({"type": "string", "maxLength": True}, "two"),
    ],
)
def test_what_limits_nothing_is_neither_said_nor_asked_for(described: Any, typed: str) -> None:
    schema = {"type": "object", "properties": {"value": described}, "required": ["value"]}
    form = ArgumentForm({"arg0": typed}, schema=schema, current={})
    assert form.is_valid(), form.errors
    assert form.fields["arg0"].help_text == ""
