"""Price lists as files: JSON or CSV in, rates out, every bad line named. Knows nothing of the database."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from budgets.types import RateKind
from controlplane.common.canonical import parse_strict
from controlplane.common.errors import FieldError, invalid

MAX_RATES = 50_000
MAX_BYTES = 16 * 1024 * 1024
TOKEN_CLASSES = ("uncached_input", "cache_read", "cache_write", "output")
_FIELDS = frozenset({"kind", "key", "token_class", "amount", "currency", "valid_from"})
_AMOUNT = re.compile(r"[0-9]{1,15}(\.[0-9]{1,12})?\Z")
_CURRENCY = re.compile(r"[A-Z]{3}\Z")


@dataclass(frozen=True)
class Rate:
    """One dated price. `currency` empty: the organisation's own."""

    kind: RateKind
    key: str
    token_class: str
    amount: Decimal
    currency: str
    valid_from: datetime


def parse_price_list(raw: bytes, *, form: str) -> Sequence[Rate]:
    """`form` is "json" ({"prices": [...]} or a list) or "csv" (with a header). Raises 422 `prices.invalid`."""
    rows = _csv(raw) if form == "csv" else _json(raw)
    if len(rows) > MAX_RATES:
        raise invalid("prices.invalid", f"At most {MAX_RATES} prices are read at once.")
    errors: list[FieldError] = []
    rates: list[Rate] = []
    for index, row in enumerate(rows):
        where = f"/prices/{index}"
        problems = _problems(row, where)
        errors += problems
        if not problems:
            rates.append(_rate(row))
    if errors:
        raise invalid("prices.invalid", "Some prices can't be used as they are.", *errors[:50])
    return rates


def _json(raw: bytes) -> Sequence[Any]:
    value = parse_strict(raw, max_bytes=MAX_BYTES)
    rows = value.get("prices") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise invalid("prices.invalid", "A price list is a list, or an object with “prices”.")
    return rows


def _csv(raw: bytes) -> Sequence[Any]:
    if len(raw) > MAX_BYTES:
        raise invalid("prices.invalid", f"At most {MAX_BYTES} bytes are read.")
    try:
        reader = csv.DictReader(io.StringIO(raw.decode("utf-8-sig")), strict=True)
        return [dict(row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise invalid("prices.invalid", f"This is not a CSV file in UTF-8: {error}") from error


def _problems(row: Any, where: str) -> list[FieldError]:
    if not isinstance(row, dict) or set(row) - _FIELDS or not {"kind", "amount", "valid_from"} <= set(row):
        return [FieldError(where, "kind, amount, valid_from, and as needed key, token_class, currency")]
    errors = []
    kind = row["kind"]
    if kind not in set(RateKind):
        errors.append(FieldError(f"{where}/kind", "one of " + ", ".join(RateKind)))
    if not isinstance(row.get("key") or "*", str) or len(row.get("key") or "*") > 160:
        errors.append(FieldError(f"{where}/key", "text of at most 160 characters"))
    if (row.get("token_class") or "") not in (TOKEN_CLASSES if kind == RateKind.MODEL_TOKEN else ("",)):
        errors.append(FieldError(f"{where}/token_class", "for model tokens one of " + ", ".join(TOKEN_CLASSES)))
    if not isinstance(row["amount"], str) or not _AMOUNT.match(row["amount"]):
        errors.append(FieldError(f"{where}/amount", 'text such as "0.000012": not negative, at most twelve decimals'))
    if (row.get("currency") or "") and not _CURRENCY.match(str(row["currency"])):
        errors.append(FieldError(f"{where}/currency", "three capital letters, or nothing for the organisation's own"))
    if _moment(row["valid_from"]) is None:
        errors.append(FieldError(f"{where}/valid_from", "a time with its zone, such as 2026-01-01T00:00:00Z"))
    return errors


def _rate(row: Mapping[str, Any]) -> Rate:
    moment = _moment(row["valid_from"])
    try:
        amount = Decimal(row["amount"])
    except InvalidOperation as error:  # _problems has looked: this can't be reached with a list that passed
        raise invalid("prices.invalid", "An amount is not a number.") from error
    if moment is None:
        raise invalid("prices.invalid", "A date is not a time.")
    return Rate(
        kind=RateKind(row["kind"]),
        key=row.get("key") or "*",
        token_class=row.get("token_class") or "",
        amount=amount,
        currency=row.get("currency") or "",
        valid_from=moment,
    )


def _moment(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
