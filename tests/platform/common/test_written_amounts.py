"""An amount that was written down is read back as what it was, by everything that reads numbers."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.common.written_amounts import written_amount


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("0E-12", "0.00"),
        ("1.00000E-7", "0.0000001"),
        ("1E+3", "1000.00"),
        ("5", "5.00"),
        ("0.100000000000", "0.10"),
        ("-0.0000001", "-0.0000001"),
    ],
)
def test_an_amount_has_no_exponent_and_no_needless_zeros(amount: str, text: str) -> None:
    assert written_amount(Decimal(amount)) == text


@given(st.decimals(min_value=-(10**12), max_value=10**12, places=12))
def test_every_amount_is_exact_and_digits_alone(amount: Decimal) -> None:
    text = written_amount(amount)
    assert re.fullmatch(r"-?\d+\.\d{2,12}", text)
    assert Decimal(text) == amount
