"""An amount somebody typed is the amount they meant, or refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.common.typed_amounts import NotAnAmount, typed_amount, typed_amount_up_to

amounts = st.decimals(min_value=0, max_value=999_999_999_999, places=2)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("5", "5"),
        (" 5.50 ", "5.50"),
        ("5,50", "5.50"),
        (".5", "0.5"),
        ("0,125", "0.125"),
        ("1000", "1000"),
        ("1 000", "1000"),
        ("1\u202f000,5", "1000.5"),
        ("1,000.50", "1000.50"),
        ("1.000,50", "1000.50"),
        ("1,000,000", "1000000"),
        ("1.000.000", "1000000"),
        ("1.234", "1.234"),
        ("5.5000", "5.5"),
    ],
)
def test_one_reading_is_taken(text: str, amount: str) -> None:
    assert typed_amount(text) == Decimal(amount)


@pytest.mark.parametrize(
    ("text", "readings"),
    [
        ("1,000", "1000 or 1.00"),
        ("5,500", "5500 or 5.50"),
        ("999,999", "999999 or 999.999"),
        ("1.000", "1000 or 1.00"),
        ("12.500", "12500 or 12.50"),
    ],
)
def test_a_mark_before_three_digits_is_refused_with_both_readings(text: str, readings: str) -> None:
    with pytest.raises(NotAnAmount, match=f"{readings.replace('.', '[.]')}[?]"):
        typed_amount(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "-5",
        "+5",
        "5e3",
        "NaN",
        "Infinity",
        "1,00,000",
        "1.0.0",
        "1,0000.5",
        "٥",
        "5.",
        "1 00",
        "5 $",
        "1,000 000",
        "1,5 000",
    ],
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(NotAnAmount):
        typed_amount(text)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("1e3", "digits only"),
        ("-5", "digits only"),
        ("999999999999999999", "too large: at most 15 digits"),
        ("999,999,999,999,999,999.00", "too large: at most 15 digits"),
    ],
)
def test_what_is_refused_is_told_its_fault(text: str, fault: str) -> None:
    with pytest.raises(NotAnAmount, match=fault):
        typed_amount(text)


@pytest.mark.parametrize(
    ("text", "fault"), [("1000001", "too large: at most 1,000,000"), ("0", "above 0"), ("0.0000001", "six decimals")]
)
def test_an_amount_outside_of_its_bounds_is_told_which(text: str, fault: str) -> None:
    with pytest.raises(NotAnAmount, match=fault):
        typed_amount_up_to(text, 1_000_000)


@given(amounts, st.sampled_from([",.", ".,", " .", " ,", "\u00a0,"]))
def test_an_amount_written_with_cents_in_any_way_is_read_back(amount: Decimal, marks: str) -> None:
    group, point = marks
    written = f"{amount:,.2f}".translate({ord(","): group, ord("."): point})
    assert typed_amount(written) == amount


@given(amounts)
def test_an_amount_without_marks_is_read_back(amount: Decimal) -> None:
    assert typed_amount(f"{amount:f}") == amount
