"""Numbers as people read them: money, counts, sizes, spans of time. The tags that use these are in `remit`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from zoneinfo import ZoneInfo

from moneyed import CurrencyDoesNotExist, get_currency

MINUS = "\u2212"
_MOST_DECIMALS = 4
_EXACT_DECIMALS = 12  # as the ledger keeps them
_STEPS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def money_text(amount: Decimal, currency: str, decimals: int | None = None) -> str:
    """ "$0.42", "240.00 EUR"; what is less than a cent has four decimals, or is "<$0.0001": never a false zero.
    `decimals` that add up are kept to."""
    size, places = abs(amount), _decimals(currency)
    if 0 < size < Decimal(1).scaleb(-places):
        places = max(places, _MOST_DECIMALS)
    smallest = Decimal(1).scaleb(-_MOST_DECIMALS)
    under = "<" if 0 < size < smallest and decimals is None else ""
    shown = _rounded(smallest if under else size, places if decimals is None else decimals)
    sign = MINUS if amount < 0 else ""
    return f"{sign}{under}${shown:,f}" if currency == "USD" else f"{sign}{under}{shown:,f} {currency}"


def decimals_that_add_up(total: Decimal, parts: Iterable[Decimal], currency: str) -> int | None:
    """The fewest with which the parts as shown make the total as shown, and none of them is a false zero. None where
    the parts don't make the total."""
    parts = list(parts)
    for places in range(_decimals(currency), _EXACT_DECIMALS + 1):
        shown = [_rounded(part, places) for part in parts]
        if sum(shown) == _rounded(total, places) and [bool(part) for part in shown] == [bool(part) for part in parts]:
            return places
    return None


def _rounded(amount: Decimal, places: int) -> Decimal:
    with localcontext() as context:
        context.prec = 60
        return amount.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN)


def exact_money_text(amount: Decimal, currency: str) -> str:
    """Every digit there is: "0.4234567 USD"."""
    text = f"{amount:,f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text or '0'} {currency}"


def number_text(value: int | float | Decimal) -> str:
    """Thousands apart; whole numbers without decimals, others with at most two."""
    exact = Decimal(str(value))
    whole = exact == exact.to_integral_value()
    text = f"{int(exact):,d}" if whole else f"{exact:,.2f}".rstrip("0").rstrip(".")
    return text.replace("-", MINUS)


def bytes_text(count: int) -> str:
    """Binary units, as memory and disks are granted: 268435456 → "256 MiB"."""
    size, unit = Decimal(count), 0
    while abs(size) >= 1024 and unit < len(_BYTE_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    digits = f"{size:.1f}".removesuffix(".0") if abs(size) < 100 else f"{size:.0f}"
    return f"{digits} {_BYTE_UNITS[unit]}"


def duration_text(span: timedelta | int | float | Decimal) -> str:
    """Two units at most: "0.2 ms", "4.1 s", "4 min 12 s", "2 h 5 min", "3 d 4 h". Plain numbers are seconds."""
    seconds = span.total_seconds() if isinstance(span, timedelta) else float(span)
    if seconds < 0:
        return MINUS + duration_text(-seconds)
    if seconds == 0:
        return "0 s"
    if seconds < 0.001:
        return f"{seconds * 1_000_000:.3g} µs"
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for size, unit, rest_size, rest_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // rest_size
            return f"{whole // size} {unit}" + (f" {rest} {rest_unit}" if rest else "")
    raise AssertionError("unreachable: whole is at least 60")


def relative_text(moment: datetime, *, now: datetime) -> str:
    """ "20 s ago", "in 4 min", "in 1 h 30 min". What is to come is rounded: seconds after somebody chose seven days it
    still is "in 7 d". static/remit/js/times.js keeps it current with the same steps."""
    seconds = round((moment - now).total_seconds())
    size = abs(seconds)
    if size < 5:
        return "now"
    if seconds < 0:
        length, unit = next(step for step in _STEPS if size >= step[0])
        return f"{size // length} {unit} ago"
    for (length, unit), (finer, finer_unit) in zip(_STEPS, (*_STEPS[1:], _STEPS[-1]), strict=True):
        if (about := _nearest(size, finer) * finer) >= length:
            rest = (about - length) // finer if about < 2 * length and finer < length else 0
            return f"in 1 {unit} {rest} {finer_unit}" if rest else f"in {_nearest(size, length)} {unit}"
    raise AssertionError("unreachable: size is at least 5")


def _nearest(size: int, length: int) -> int:
    return (2 * size + length) // (2 * length)


def absolute_text(moment: datetime, zone: ZoneInfo) -> str:
    """ "Monday 23 November 2026, 09:41:07 Europe/Berlin"."""
    local = moment.astimezone(zone)
    return f"{local:%A} {local.day} {local:%B %Y, %H:%M:%S} {zone.key}"


def day_text(moment: datetime, *, now: datetime, zone: ZoneInfo) -> str:
    """ "Today", "Yesterday", "Monday 23 November 2026": the day as the viewer's calendar has it."""
    local, today = moment.astimezone(zone).date(), now.astimezone(zone).date()
    if local == today:
        return "Today"
    return "Yesterday" if local == today - timedelta(days=1) else f"{local:%A} {local.day} {local:%B %Y}"


def _decimals(currency: str) -> int:
    try:
        return len(str(get_currency(currency).sub_unit)) - 1
    except CurrencyDoesNotExist:
        return 2
