"""Amounts of money as text, for downloads, the trail and programs: one form, which every reader takes for a number."""

from __future__ import annotations

from decimal import Decimal


def written_amount(amount: Decimal) -> str:
    """Exact and never with an exponent (`0E-12` and `1E-7` are Python's): at least two decimals, no needless zeros."""
    whole, _, digits = f"{amount:f}".partition(".")
    return f"{whole}.{digits.rstrip('0').ljust(2, '0')}"
