"""Costs: what one accepted goal costs, by kind of goal, down to the mission and its ledger lines. Reads sums only."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_GET

from budgets import selectors as budgets
from budgets.costs import selectors
from budgets.costs.types import OUTSIDE, GoalRow, MissionCost, MissionRow, StandingDay, totals
from budgets.types import Standing
from controlplane.common.clock import now
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.types import Permission
from frontend.exports import csv_response, every_page
from frontend.pages import PersonRequest, page, require_anywhere
from frontend.periods import COMPARED, PERIODS, Period, period_of
from frontend.templatetags.charts import Bar
from frontend.views.budgets import with_titles

MOST_BARS = 8
PAGE = 50
_PLACES = Decimal("0.000000000001")
_SORTS = {
    "goal": lambda row: row.name.lower(),
    "missions": lambda row: row.missions,
    "accepted": lambda row: row.accepted,
    "each": lambda row: _or_least(row.cost_each),
    "attempts": lambda row: row.effort.attempts,
    "retries": lambda row: row.effort.retries,
    "denied": lambda row: row.effort.denied,
    "minutes": lambda row: row.effort.human_seconds,
    "waste": lambda row: _or_least(row.waste_share),
    "total": lambda row: row.total,
}
_GOAL_HEADER = (
    *("goal", "missions", "accepted", "rejected", "wasted", "attempts", "retries", "calls", "denied", "human_minutes"),
    *("money_accepted", "money_rejected", "money_waste", "money_open", "money_outside", "money_total"),
    *("cost_per_accepted_goal", "waste_percent", "currency", "first_day", "last_day"),
)
_MISSION_HEADER = (
    *("mission", "id", "standing", "decided_on", "attempts", "retries", "calls", "denied", "human_minutes", "money"),
    *("currency", "first_day", "last_day"),
)
_LINE_HEADER = ("id", "at", "description", "for", "money", "currency", "tokens", "steps", "hold", "action")


@dataclass(frozen=True)
class Delta:
    """How a number moved against the compared period, in per cent of that; `good`: less is better."""

    percent: Decimal
    before: Decimal

    @property
    def tone(self) -> str:
        return "good" if self.percent < 0 else "bad" if self.percent > 0 else ""

    @property
    def icon(self) -> str:
        return "arrow-down" if self.percent < 0 else "arrow-up"

    @property
    def size(self) -> str:
        shown = abs(self.percent)
        return f"{shown:.0f}" if shown >= 1 or shown == 0 else "under 1"


@dataclass(frozen=True)
class Line:
    row: GoalRow
    delta: Delta | None


@page
@require_GET
def overview(request: PersonRequest) -> HttpResponseBase:
    """Every kind of goal in a period, compared with another one."""
    require_anywhere(request.principal, Permission.COST_VIEW, "Costs")
    period = _period(request)
    found = selectors.report(request.principal, period.span)
    currency = tenancy.currency_of(request.principal)
    rows = _sorted(request, found.goals)
    if request.GET.get("format") == "csv":
        return csv_response(f"costs-{_days(period)}", _GOAL_HEADER, _goal_csv(rows, period, currency))
    other = selectors.goal_rows(request.principal, period.other) if period.other else []
    before = {row.goal: row for row in other}
    total, total_before = totals(rows), totals(other)
    by_time = request.GET.get("by") == "time"
    context = {
        **_frame(period, currency),
        "rows": [Line(row, _delta(row, before.get(row.goal))) for row in rows],
        "total": total,
        "delta": _delta(total, total_before),
        "before": total_before if period.other else None,
        "check": found.check,
        "by_time": by_time,
        "bars": _time_bars(request, period) if by_time else _goal_bars(found.goals),
        "has_open": bool(total.money[Standing.OPEN] or total.outside),
    }
    return render(request, "costs/page.html", context)


@page
@require_GET
def goal(request: PersonRequest, goal: str) -> HttpResponseBase:
    """The missions of one kind of goal, or the budgets charged outside missions."""
    require_anywhere(request.principal, Permission.COST_VIEW, "Costs")
    period, currency = _period(request), tenancy.currency_of(request.principal)
    name = selectors.goal_name(request.principal, goal)
    if goal == OUTSIDE:
        accounts = selectors.outside_missions(request.principal, period.span)
        context = {"name": name, "goal": goal, "accounts": accounts, **_frame(period, currency)}
        context["money"] = sum((row.money for row in accounts), Decimal(0))
        return render(request, "costs/outside.html", context)
    sort = request.GET.get("sort", "-money")
    if request.GET.get("format") == "csv":
        everything = selectors.every_mission_of_goal(request.principal, period.span, goal, sort=sort)
        return csv_response(f"costs-{_days(period)}", _MISSION_HEADER, _mission_csv(everything, period, currency))
    offset = _offset(request)
    found = selectors.missions_of_goal(request.principal, period.span, goal, sort=sort, limit=PAGE, offset=offset)
    row = next((row for row in selectors.goal_rows(request.principal, period.span) if row.goal == goal), None)
    context = {
        **_frame(period, currency),
        "name": name,
        "goal": goal,
        "row": row,
        "found": found,
        "first": offset + 1,
        "last": offset + len(found.rows),
        "newer": str(max(offset - PAGE, 0)) if offset else None,
        "older": str(offset + PAGE) if offset + PAGE < found.count else None,
    }
    return render(request, "costs/goal.html", context)


@page
@require_GET
def mission(request: PersonRequest, mission_id: uuid.UUID) -> HttpResponseBase:
    """What one mission was charged for, line by line."""
    require_anywhere(request.principal, Permission.COST_VIEW, "Costs")
    period, currency = _period(request), tenancy.currency_of(request.principal)
    if request.GET.get("format") == "csv":
        read = functools.partial(
            selectors.mission_cost, request.principal, mission_id, period.span, limit=selectors.MAX_PAGE
        )
        newest = read()
        pages = every_page(lambda cursor: read(cursor=cursor) if cursor else newest)
        return csv_response(
            f"costs-{mission_id}-{_days(period)}", _LINE_HEADER, _line_csv(request, newest, pages, currency)
        )
    found = selectors.mission_cost(
        request.principal, mission_id, period.span, cursor=request.GET.get("cursor"), limit=PAGE
    )
    context = {
        **_frame(period, currency),
        "found": found,
        "lines": with_titles(request, found.lines),
        "account": budgets.mission_spend(mission_ids=[mission_id]).get(mission_id),
    }
    return render(request, "costs/mission.html", context)


def _period(request: PersonRequest) -> Period:
    return period_of(request.GET.dict(), now(), tenancy.zone_of(request.principal))


def _frame(period: Period, currency: str) -> dict[str, Any]:
    return {"period": period, "periods": PERIODS.items(), "compared": COMPARED.items(), "currency": currency}


def _sorted(request: PersonRequest, rows: Sequence[GoalRow]) -> list[GoalRow]:
    chosen = request.GET.get("sort", "")
    key = _SORTS.get(chosen.removeprefix("-"))
    if key is None:
        return list(rows)
    return sorted(rows, key=key, reverse=chosen.startswith("-"))


def _or_least(value: Decimal | None) -> Decimal:
    return Decimal(-1) if value is None else value


def _delta(row: GoalRow, before: GoalRow | None) -> Delta | None:
    if before is None or not before.cost_each or row.cost_each is None:
        return None
    return Delta((row.cost_each - before.cost_each) / before.cost_each * 100, before.cost_each)


def _goal_bars(rows: Sequence[GoalRow]) -> list[Bar]:
    """The dearest kinds; the others together."""
    dearest = sorted(rows, key=lambda row: -row.total)
    shown, rest = dearest[:MOST_BARS], dearest[MOST_BARS:]
    bars = [Bar(row.name, _parts(row)) for row in shown]
    if rest:
        bars.append(Bar(f"{len(rest)} more", _parts(totals(rest))))
    return bars


def _parts(row: GoalRow) -> list[tuple[str, str, Decimal]]:
    money = row.money
    return [
        ("accepted", "accepted", money[Standing.ACCEPTED]),
        ("rejected", "rejected", money[Standing.REJECTED]),
        ("waste", "waste", money[Standing.WASTE]),
        ("open", "open", money[Standing.OPEN] + row.outside),
    ]


def _time_bars(request: PersonRequest, period: Period) -> list[Bar]:
    """Days up to a month, weeks up to half a year, months beyond."""
    span = period.span
    days = selectors.by_day(request.principal, span)
    starts = sorted({_bucket(span.first + timedelta(days=number), span.days) for number in range(span.days)})
    sums: dict[date, dict[str, Decimal]] = {start: {} for start in starts}
    for day in days:
        bucket = sums[_bucket(day.day, span.days)]
        css = _css(day)
        bucket[css] = bucket.get(css, Decimal(0)) + day.money
    return [
        Bar(
            f"{start:%b %Y}" if span.days > 182 else f"{start.day} {start:%b}",
            [(css, css, sums[start].get(css, Decimal(0))) for css in ("accepted", "rejected", "waste", "open")],
        )
        for start in starts
    ]


def _bucket(day: date, length: int) -> date:
    if length <= 31:
        return day
    return day - timedelta(days=day.weekday()) if length <= 182 else day.replace(day=1)


def _css(day: StandingDay) -> str:
    return (day.standing or Standing.OPEN).value


def _offset(request: PersonRequest) -> int:
    given = request.GET.get("cursor", "")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 8 else 0


def _days(period: Period) -> str:
    return f"{period.span.first}-to-{period.span.last}"


def _exact(value: Decimal | None) -> Decimal | None:
    return None if value is None else value.quantize(_PLACES)


def _goal_csv(rows: Sequence[GoalRow], period: Period, currency: str) -> Iterator[Sequence[object]]:
    """The rows of the page in its order, and their total, every digit of it."""
    for row in (*rows, totals(rows)):
        effort, money = row.effort, row.money
        yield (
            *(row.name, row.missions, row.accepted, row.decided[Standing.REJECTED], row.decided[Standing.WASTE]),
            *(effort.attempts, effort.retries, effort.calls, effort.denied, f"{effort.human_minutes:.1f}"),
            *(money[Standing.ACCEPTED], money[Standing.REJECTED], money[Standing.WASTE], money[Standing.OPEN]),
            *(row.outside, row.total, _exact(row.cost_each)),
            "" if row.waste_share is None else f"{row.waste_share:.2f}",
            *(currency, period.span.first, period.span.last),
        )


def _mission_csv(rows: Iterable[MissionRow], period: Period, currency: str) -> Iterator[Sequence[object]]:
    span, total = (currency, period.span.first, period.span.last), Decimal(0)
    for row in rows:
        effort = row.effort
        total += row.money
        yield (
            *(row.title, row.mission_id, row.standing.label, row.decided_on),
            *(effort.attempts, effort.retries, effort.calls, effort.denied, f"{effort.human_minutes:.1f}"),
            *(row.money, *span),
        )
    yield ("Total", *[""] * 8, total, *span)


def _line_csv(
    request: PersonRequest, newest: MissionCost, pages: Iterable[MissionCost], currency: str
) -> Iterator[Sequence[object]]:
    """Every line, and the page's total. What is among the lines and not in the sums yet stands beside it, as there."""
    for found in pages:
        for line, title in with_titles(request, found.lines):
            yield (
                *(line.id, line.at.isoformat(), line.description, title, line.amounts.money, currency),
                *(line.amounts.tokens, line.amounts.steps, line.hold_id, line.action_id),
            )
    if newest.pending:
        yield ("Not counted yet", "", "", "", newest.pending, currency, "", "", "", "")
    yield ("Total", "", "", "", newest.row.money, currency, "", "", "", "")
