"""Amounts of money as text, for titles, sentences, downloads, the trail and programs. Pages that show money by itself
have their own tag."""

from __future__ import annotations

from decimal import Decimal


def written_amount(amount: Decimal) -> str:
    """Exact, every digit that tells something, at least two decimals, never an exponent (`0E-12` and `1E-7` are
    Python's): "1.00", "0.0042", "1000.00"."""
    whole, _, digits = f"{amount:f}".partition(".")
    return f"{whole}.{digits.rstrip('0').ljust(2, '0')}"


def written_money(amount: Decimal, currency: str) -> str:
    """As pages show money, but exact: "$1,200.00", "0.0042 EUR". For titles, which stand beside such amounts."""
    whole, _, digits = written_amount(amount).partition(".")
    shown = f"{int(whole):,d}.{digits}"
    return f"${shown}" if currency == "USD" else f"{shown} {currency}"
