"""Amounts as people type them. What can be read in two ways is refused, never guessed: it is money."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_SPACES: Final = re.compile(r"(?<=\d)[ \u00a0\u202f](?=\d{3}(?!\d))")
_PLAIN: Final = re.compile(r"\d{1,15}([.,]\d{1,12})?|[.,]\d{1,12}")
_ENGLISH: Final = re.compile(r"\d{1,3}(,\d{3})+\.\d{1,12}|\d{1,3}(,\d{3}){2,4}")
_CONTINENTAL: Final = re.compile(r"\d{1,3}(\.\d{3})+,\d{1,12}|\d{1,3}(\.\d{3}){2,4}")
_TWO_WAYS: Final = re.compile(r"[1-9]\d{0,2},\d{3}")


class NotAnAmount(ValueError):
    """The text says how to type it instead."""


def typed_amount(text: str) -> Decimal:
    """The amount, not negative: `5`, `5.5`, `5,50`, `1 000`, `1,000.50`, `1.000,50`.

    Raises NotAnAmount; also for `1,000`, which is a thousand to some and one to others.
    """
    amount = _SPACES.sub("", text.strip())
    if _TWO_WAYS.fullmatch(amount):
        whole, after = amount.split(",")
        raise NotAnAmount(f"{whole}{after} or {whole}.00? A comma before three digits can be read as either")
    if _ENGLISH.fullmatch(amount):
        return Decimal(amount.replace(",", ""))
    if _CONTINENTAL.fullmatch(amount):
        return Decimal(amount.replace(".", "").replace(",", "."))
    if _PLAIN.fullmatch(amount) and amount.isascii():
        return Decimal(amount.replace(",", "."))
    raise NotAnAmount("an amount such as 5.00")
