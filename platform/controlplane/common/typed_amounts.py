"""Amounts as people type them. What can be read in two ways is refused, never guessed: it is money."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_SPACED: Final = re.compile(r"\d{1,3}([ \u00a0\u202f]\d{3})+([.,]\d{1,12})?")
_PLAIN: Final = re.compile(r"\d{1,15}([.,]\d{1,12})?|[.,]\d{1,12}")
_ENGLISH: Final = re.compile(r"\d{1,3}(,\d{3})+\.\d{1,12}|\d{1,3}(,\d{3}){2,4}")
_CONTINENTAL: Final = re.compile(r"\d{1,3}(\.\d{3})+,\d{1,12}|\d{1,3}(\.\d{3}){2,4}")
_LARGE: Final = re.compile(r"([0-9]{16,}|[0-9]{1,3}([., \u00a0\u202f][0-9]{3}){5,})([.,][0-9]{1,12})?")
_TWO_WAYS: Final = re.compile(r"[1-9]\d{0,2}(,\d{3}|\.\d\d0)")  # 1.234 is how pages write that amount


class NotAnAmount(ValueError):
    """The text says how to type it instead."""


def typed_amount(text: str) -> Decimal:
    """The amount, not negative: `5`, `5.5`, `5,50`, `1 000`, `1,000.50`, `1.000,50`.

    Raises NotAnAmount; also for `1,000` and `1.000`, which are a thousand to some and one to others.
    """
    amount = text.strip()
    if _LARGE.fullmatch(amount):
        raise NotAnAmount("too large: at most 15 digits before the cents")
    if _SPACED.fullmatch(amount):
        amount = re.sub(r"[ \u00a0\u202f]", "", amount)
    elif _TWO_WAYS.fullmatch(amount):
        whole, after = amount[:-4], amount[-3:]
        small = f"{whole}.{after.rstrip('0').ljust(2, '0')}"
        raise NotAnAmount(f"{whole}{after} or {small}? A mark before three digits can be read as either")
    if _ENGLISH.fullmatch(amount):
        return Decimal(amount.replace(",", ""))
    if _CONTINENTAL.fullmatch(amount):
        return Decimal(amount.replace(".", "").replace(",", "."))
    if _PLAIN.fullmatch(amount) and amount.isascii():
        return Decimal(amount.replace(",", "."))
    raise NotAnAmount("an amount such as 5.00: digits only")


def typed_amount_up_to(text: str, most: int) -> Decimal:
    """The same, above 0 and not above `most`, with at most six decimals. Raises NotAnAmount."""
    amount = typed_amount(text)
    if amount > most:
        raise NotAnAmount(f"too large: at most {most:,}")
    if amount == 0 or amount != round(amount, 6):
        raise NotAnAmount("an amount such as 5.00, above 0, with at most six decimals")
    return amount
