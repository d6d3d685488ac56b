"""Euro amounts as they travel (decimal text, "40.00") and as they are kept (whole cents)."""

from __future__ import annotations

import re

AMOUNT = r"^(0|[1-9][0-9]{0,5})\.[0-9]{2}$"


def euros(cents: int) -> str:
    """`4000` → "40.00"."""
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100}.{abs(cents) % 100:02d}"


def cents(amount: str) -> int:
    """ "40.00" → `4000`. Raises ValueError for anything but plain digits with exactly two decimals."""
    if re.fullmatch(AMOUNT, amount, re.ASCII) is None:
        raise ValueError(f"{amount[:20]!r} is not an amount like 40.00")
    return int(amount.replace(".", ""))
