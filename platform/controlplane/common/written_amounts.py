"""Amounts as titles, sentences and the audit trail write them. Pages that show money by itself have their own tag."""

from __future__ import annotations

from decimal import Decimal


def written_amount(amount: Decimal) -> str:
    """Every digit that tells something, at least two decimals, no exponent: "1.00", "0.0042", "1000.00"."""
    whole, _, digits = f"{amount:f}".partition(".")
    return f"{whole}.{digits.rstrip('0').ljust(2, '0')}"
