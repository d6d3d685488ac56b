"""Periods of the costs page: what a query string means in days of the organisation, and what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from budgets.costs.types import Span

LONGEST_DAYS = 3 * 366
PERIODS = {
    "7d": "Last 7 days",
    "28d": "Last 4 weeks",
    "90d": "Last 90 days",
    "month": "This month",
    "last-month": "Last month",
    "year": "This year",
    "days": "From … to …",
}
COMPARED = {"before": "the period before", "year": "the year before", "none": "nothing"}


@dataclass(frozen=True)
class Period:
    """`problem`: what was wrong with the days asked for, where the standard period is shown instead."""

    code: str
    span: Span
    compared: str
    other: Span | None
    problem: str = ""
    zone: str = ""

    @property
    def query(self) -> str:
        """What links to other pages of costs carry along."""
        values = {"period": self.code, "compare": self.compared}
        if self.code == "days":
            values |= {"from": str(self.span.first), "to": str(self.span.last)}
        return urlencode(values)

    @property
    def words(self) -> str:
        return span_words(self.span)

    @property
    def other_words(self) -> str:
        return span_words(self.other) if self.other else ""


def period_of(query: Mapping[str, str], moment: datetime, zone: ZoneInfo) -> Period:
    today = moment.astimezone(zone).date()
    code, problem = query.get("period", "28d"), ""
    if code not in PERIODS:
        code = "28d"
    if code == "days" and not query.get("from") and not query.get("to"):
        span = _preset("28d", today)  # chosen just now: the form asks for the days next
    elif code == "days":
        given = _given(query, today)
        if isinstance(given, str):
            code, problem, span = "28d", given, _preset("28d", today)
        else:
            span = given
    else:
        span = _preset(code, today)
    compared = query.get("compare", "before")
    if compared not in COMPARED:
        compared = "before"
    return Period(code, span, compared, _other(code, span, compared), problem, zone.key)


def span_words(span: Span) -> str:
    """ "2 to 29 November 2026", "28 December 2025 to 3 January 2026"."""
    first, last = span.first, span.last
    if first == last:
        return f"{first.day} {first:%B %Y}"
    if first.year != last.year:
        return f"{first.day} {first:%B %Y} to {last.day} {last:%B %Y}"
    if first.month != last.month:
        return f"{first.day} {first:%B} to {last.day} {last:%B %Y}"
    return f"{first.day} to {last.day} {last:%B %Y}"


def _preset(code: str, today: date) -> Span:
    match code:
        case "month":
            return Span(today.replace(day=1), today)
        case "last-month":
            last = today.replace(day=1) - timedelta(days=1)
            return Span(last.replace(day=1), last)
        case "year":
            return Span(today.replace(month=1, day=1), today)
    return Span(today - timedelta(days=int(code.removesuffix("d")) - 1), today)


def _given(query: Mapping[str, str], today: date) -> Span | str:
    try:
        first, last = date.fromisoformat(query.get("from", "")), date.fromisoformat(query.get("to", ""))
    except ValueError:
        return "Give both days, such as 2026-11-01. The last 4 weeks are shown instead."
    if last < first:
        return "The first day is after the last one. The last 4 weeks are shown instead."
    if (last - first).days >= LONGEST_DAYS or first.year < 2000 or last > today + timedelta(days=366):
        return "That is longer than three years, or too far away. The last 4 weeks are shown instead."
    return Span(first, last)


def _other(code: str, span: Span, compared: str) -> Span | None:
    if compared == "none":
        return None
    if compared == "year":
        return Span(_year_before(span.first), _year_before(span.last))
    if code == "last-month":
        return _preset("last-month", span.first)
    if code == "month":
        last = span.first - timedelta(days=1)
        return Span(last.replace(day=1), min(last, last.replace(day=1) + timedelta(days=span.days - 1)))
    if code == "year":
        return Span(_year_before(span.first), _year_before(span.last))
    return span.before()


def _year_before(day: date) -> date:
    return day.replace(year=day.year - 1, day=28) if (day.month, day.day) == (2, 29) else day.replace(year=day.year - 1)
