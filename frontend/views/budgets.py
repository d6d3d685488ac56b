"""Budgets: the tree with what is left, and the lines of one account. Nothing is changed here."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_GET

from agents import selectors as agents
from agents.choices import ENDED_MISSION_STATES
from budgets import selectors
from budgets.types import Balance, LedgerLine, Level
from controlplane.tenancy.types import Permission
from frontend.exports import csv_response
from frontend.pages import PersonRequest, page, require_anywhere
from governance import selectors as governance

SPEND_DAYS = 30
LONGEST_EXPORT = 5000
_ICONS = {Level.ORGANISATION: "organisation", Level.TEAM: "users", Level.AGENT: "agent", Level.MISSION: "mission"}
_CSV_HEADER = ("id", "at", "kind", "description", "currency", "money", "tokens", "steps", "hold", "action", "mission")


@dataclass(frozen=True)
class Row:
    """One account of the tree as a line of the table. `depth` 0 to 4 is how far its name stands in."""

    balance: Balance
    depth: int
    icon: str
    days_left: Decimal | None


@page
@require_GET
def tree(request: PersonRequest) -> HttpResponse:
    """Every budget the viewer may see. Those of missions that are over are left out until asked for."""
    require_anywhere(request.principal, Permission.BUDGET_VIEW, "Budgets")
    roots = selectors.tree(request.principal)
    rows = list(_rows(roots, 0))
    over = _missions_over(request, rows)
    with_ended = bool(request.GET.get("ended"))
    shown = rows if with_ended else [row for row in rows if row.balance.subject_id not in over]
    context = {"rows": shown, "left_out": len(rows) - len(shown), "with_ended": with_ended, "over": over}
    return render(request, "budgets/tree.html", context)


@page
@require_GET
def lines(request: PersonRequest, account_id: uuid.UUID) -> HttpResponseBase:
    """One account: its windows, its days, and every line of its journal and of those below it."""
    require_anywhere(request.principal, Permission.BUDGET_VIEW, "Budgets")
    balance = selectors.balance(request.principal, account_id)
    if request.GET.get("format") == "csv":
        return csv_response(f"budget-{account_id}", _CSV_HEADER, _csv_rows(request, account_id))
    found = selectors.lines(request.principal, account_id=account_id, cursor=request.GET.get("cursor"))
    days = selectors.spend_per_day(request.principal, account_id=account_id, days=SPEND_DAYS)
    context = {
        "balance": balance,
        "windows": [balance, *balance.also],
        "lines": found,
        "lines_with_titles": with_titles(request, found.items),
        "rows": list(_rows([balance], 0))[1:],
        "burn": [day.spent.money for day in days],
        "days_left": _days_left(balance),
        "spend_days": SPEND_DAYS,
    }
    return render(request, "budgets/lines.html", context)


def with_titles(request: PersonRequest, found: Sequence[LedgerLine]) -> list[tuple[LedgerLine, str]]:
    """Each line with the title of its action, where it has one that the viewer may see."""
    ids = [line.action_id for line in found if line.action_id is not None]
    titles = governance.action_titles(request.principal, ids)
    return [(line, titles.get(line.action_id, "") if line.action_id else "") for line in found]


def _rows(balances: Iterable[Balance], depth: int) -> Iterator[Row]:
    for balance in balances:
        icon = _ICONS.get(balance.level, "budget")
        yield Row(balance, min(depth, 4), icon, _days_left(balance))
        yield from _rows(balance.children, depth + 1)


def _days_left(balance: Balance) -> Decimal | None:
    """At the pace of the last week; None without a limit or without any spending."""
    if balance.left.money is None or balance.burn_per_day <= 0:
        return None
    return min((balance.left.money / balance.burn_per_day).quantize(Decimal(1)), Decimal(9999))


def _missions_over(request: PersonRequest, rows: Sequence[Row]) -> set[uuid.UUID | None]:
    ids = [row.balance.subject_id for row in rows if row.balance.level is Level.MISSION and row.balance.subject_id]
    ended = agents.missions(request.principal).filter(pk__in=ids, state__in=ENDED_MISSION_STATES)
    return set(ended.values_list("pk", flat=True)) if ids else set()


def _csv_rows(request: PersonRequest, account_id: uuid.UUID) -> Iterator[Sequence[object]]:
    cursor: str | None = None
    for _ in range(LONGEST_EXPORT // selectors.MAX_PAGE):
        found = selectors.lines(request.principal, account_id=account_id, cursor=cursor, limit=selectors.MAX_PAGE)
        yield from (_csv_row(line) for line in found.items)
        cursor = found.next
        if cursor is None:
            return


def _csv_row(line: LedgerLine) -> Sequence[object]:
    amounts = line.amounts
    return (
        line.id,
        line.at.isoformat(),
        line.kind,
        line.description,
        line.currency,
        amounts.money,
        amounts.tokens,
        amounts.steps,
        line.hold_id,
        line.action_id,
        line.mission_id,
    )
