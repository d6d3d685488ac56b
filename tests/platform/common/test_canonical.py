"""JSON that means one thing to every reader, and quickly refused when it does not."""

from __future__ import annotations

import json
import math
import time

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from controlplane.common.canonical import MAX_INTEGER, canonical_bytes, check_value, digest, parse_strict
from controlplane.common.errors import RemitError


def refusal(raw: bytes, **limits: int) -> str:
    with pytest.raises(RemitError) as refused:
        parse_strict(raw, **limits)
    return refused.value.code


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b'{"a": 1, "a": 1}', "json.duplicate_key"),
        (b'{"a": {"b": 1, "b": 2}}', "json.duplicate_key"),
        (b'{"a": 1, "\\u0061": 2}', "json.duplicate_key"),
        (b"NaN", "json.number_not_finite"),
        (b"[Infinity]", "json.number_not_finite"),
        (b'{"x": -Infinity}', "json.number_not_finite"),
        (b"1e400", "json.number_not_finite"),
        (b"-1e400", "json.number_not_finite"),
        (b"1e-400", "json.number_not_finite"),
        (b"-0", "json.number_not_finite"),
        (b"-0.0", "json.number_not_finite"),
        (b"[-0e7]", "json.number_not_finite"),
        (b"9007199254740992", "json.integer_too_large"),
        (b"-9007199254740992", "json.integer_too_large"),
        (b"9007199254740993.0", "json.integer_too_large"),
        (b"1e16", "json.integer_too_large"),
        (b"9" * 4300, "json.integer_too_large"),
        (b"-" + b"9" * 4300, "json.integer_too_large"),
        (b"0." + b"9" * 4300, "json.number_too_long"),
        (b"9" * 4300 + b".5", "json.number_too_long"),
        (b'"\\u0000"', "json.nul"),
        (b'{"\\u0000": 1}', "json.nul"),
        (b'"\x00"', "json.malformed"),
        (b'"\xff"', "json.invalid_utf8"),
        (b'"\xc0\xaf"', "json.invalid_utf8"),
        (b'"\xed\xa0\x80"', "json.invalid_utf8"),
        (b'"\\ud800"', "json.lone_surrogate"),
        (b'{"\\udfff": 1}', "json.lone_surrogate"),
        (b'"\\ude00\\ud83d"', "json.lone_surrogate"),
        (b"\xef\xbb\xbf{}", "json.malformed"),
        ('{"a": 1}'.encode("utf-16"), "json.invalid_utf8"),
        (b"", "json.malformed"),
        (b" ", "json.malformed"),
        (b"{} {}", "json.malformed"),
        (b"[1,]", "json.malformed"),
        (b"{'a': 1}", "json.malformed"),
        (b"{} // comment", "json.malformed"),
        (b"01", "json.malformed"),
        (b"+1", "json.malformed"),
        (b".5", "json.malformed"),
        (b"0x10", "json.malformed"),
        (b'"\n"', "json.malformed"),
        (b'{"a": 1', "json.malformed"),
        (b'"\\', "json.malformed"),
        (b"[" * 65 + b"]" * 65, "json.too_deep"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "json.too_deep"),
        (b"[" + b"0," * 50_000 + b"0]", "json.too_many_values"),
        (b"[" + b"[]," * 50_000 + b"[]]", "json.too_many_values"),
    ],
)
def test_refuses(raw: bytes, code: str) -> None:
    assert refusal(raw) == code


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b"[" * 1_000_000,
        b'{"a":' * 150_000,
        b'["' + b'\\"[' * 300_000,
        b'"' + b"\\" * 1_000_000,
        b"[" + b"0," * 500_000,
        b'["' + b'","' * 300_000 + b'"]',
        b" " * 50_000_000,
    ],
)
def test_hostile_bodies_are_refused_quickly_and_crash_nothing(raw: bytes) -> None:
    started = time.perf_counter()
    refusal(raw)
    assert time.perf_counter() - started < 5  # milliseconds when it works; minutes when something is quadratic


def test_a_large_body_is_refused_by_its_size_before_it_is_decoded() -> None:
    assert refusal(b"\xff" * 2_000_000) == "json.too_large"
    with pytest.raises(RemitError) as refused:
        parse_strict(b"[1, 2]", max_bytes=5)
    assert refused.value.status == 413


def test_brackets_inside_texts_are_not_nesting() -> None:
    text = '[{"' * 1000 + "\\" * 3
    assert parse_strict(json.dumps({"a": text}).encode()) == {"a": text}


def test_a_smaller_depth_can_be_asked_for() -> None:
    assert parse_strict(b"[[1]]", max_depth=3) == [[1]]
    assert refusal(b"[[[[1]]]]", max_depth=3) == "json.too_deep"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"1", b"1.0"),
        (b"1", b"1e0"),
        (b"100", b"1E+2"),
        (b"0.1", b"1e-1"),
        (b'{"b": 1, "a": 2}', b'{"a":2,"b":1.000}'),
        (b'"\\u00e9"', '"é"'.encode()),
        (b'"\\ud83d\\ude00"', '"😀"'.encode()),
        (b'"\\/"', b'"/"'),
    ],
)
def test_two_spellings_of_one_value_have_one_digest(one: bytes, other: bytes) -> None:
    assert parse_strict(one) == parse_strict(other)
    assert type(parse_strict(one)) is type(parse_strict(other))
    assert digest(parse_strict(one)) == digest(parse_strict(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"1", b'"1"'),
        (b"1", b"true"),
        (b"null", b"false"),
        (b'"\\u00e9"', b'"e\\u0301"'),  # composed and decomposed
        (b'"a"', b'"a "'),
        (b"[]", b"{}"),
        (b'{"a": null}', b"{}"),
        ('"ｐay"'.encode(), b'"pay"'),
        ('"pay​"'.encode(), b'"pay"'),
    ],
)
def test_two_values_that_only_look_alike_have_two_digests(one: bytes, other: bytes) -> None:
    assert digest(parse_strict(one)) != digest(parse_strict(other))


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), -0.0, 2**53, -(2**60), 1e300, "\ud800", "a\x00", {1: 2}, {"a": object()}, b"a"],
)
def test_a_parsed_value_is_held_to_the_same_rules(value: object) -> None:
    with pytest.raises(RemitError):
        check_value(value)
    with pytest.raises(RemitError):
        check_value({"a": [value]})


def test_a_parsed_value_that_is_too_deep_or_too_large_is_refused() -> None:
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    with pytest.raises(RemitError, match="too_deep"):
        check_value(deep)
    with pytest.raises(RemitError, match="too_many_values"):
        check_value([0] * 60_000)


_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
_number = st.integers(-MAX_INTEGER, MAX_INTEGER) | st.floats(-MAX_INTEGER, MAX_INTEGER).filter(
    lambda value: not (value == 0 and math.copysign(1, value) < 0)
)
_values = st.recursive(
    st.none() | st.booleans() | _number | _text,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_text, inner, max_size=5),
    max_leaves=20,
)


@given(_values)
@example({"a": 1e-07, "b": 0.00001, "c": 123456789012345680.0 % 1, "d": 5e-324})
@example({"\U0001f600": 1, "\ue000": 2})
@example(["1.0", "5e-05", "12345678901234567890", "\x7f\u2028\x1f"])
def test_the_canonical_form_is_rfc_8785_and_stable(value: object) -> None:
    written = canonical_bytes(value)
    assert written == rfc8785.dumps(value)
    again = parse_strict(written, max_depth=200)
    assert again == value
    assert canonical_bytes(again) == written


@given(_values)
def test_any_spelling_parses_to_the_same_canonical_form(value: object) -> None:
    spaced = json.dumps(value, indent=1, ensure_ascii=True).encode()
    assert canonical_bytes(parse_strict(spaced, max_depth=200)) == canonical_bytes(value)


@given(
    st.binary(max_size=200)
    | _text.map(str.encode)
    | st.text('[]{}",:0123456789.eE-+\\ utfn', max_size=60).map(str.encode)
)
def test_any_bytes_are_parsed_or_refused_by_name(raw: bytes) -> None:
    try:
        value = parse_strict(raw)
    except RemitError as error:
        named = error.code.startswith("json.") and error.status in (413, 422)
        assert named, error  # noqa: PT017
    else:
        check_value(value)
        assert parse_strict(canonical_bytes(value)) == value
