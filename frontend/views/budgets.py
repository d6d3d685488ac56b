"""Budgets: the tree with what is left, who asks for more, and the lines of one account. Nothing is changed here."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal

from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_GET

from agents import selectors as agents
from budgets import alerts, listing, selectors
from budgets.models import LimitChange
from budgets.types import Balance, LedgerLine, Level, WindowKind
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.types import Permission
from frontend.exports import csv_response, every_page
from frontend.pages import PersonRequest, page, require_anywhere
from governance import selectors as governance
from governance.models import Action

SPEND_DAYS = 30
_ICONS = {Level.ORGANISATION: "organisation", Level.TEAM: "users", Level.AGENT: "agent", Level.MISSION: "mission"}
# What the lines of an account are narrowed to, and which kinds that are.
SHOWN: dict[str, tuple[str, tuple[str, ...]]] = {
    "all": ("Every line", ()),
    "charged": ("Charges", ("settle", "correct")),
    "held": ("Holds", ("reserve", "dispatch", "extend", "void", "expire", "settle")),
    "limits": ("Limits and freezes", ("allocation", "freeze", "unfreeze", "guard", "overrun")),
}
_TREE_HEADER = (
    *("budget", "level", "depth", "window", "currency", "limit", "held", "spent", "overrun", "left", "a_day"),
    *("days_left", "frozen", "id"),
)
_CSV_HEADER = (
    *("id", "at", "kind", "description", "currency", "money", "tokens", "steps", "hold", "action", "mission"),
    *("mission_title", "agent", "budget"),
)


@dataclass(frozen=True)
class Waiting:
    """A limit that waits for a second person, and what the viewer may say to it."""

    change: LimitChange
    window: WindowKind
    may_answer: bool
    may_withdraw: bool


@dataclass(frozen=True)
class NamedLine:
    """A line of the ledger with the titles of its action and mission, the mission's agent, and the budget it is of."""

    line: LedgerLine
    title: str
    mission: str
    agent: str
    budget: str


@dataclass(frozen=True)
class Row:
    """One account of the tree as a line of the table. `depth` 0 to 4 is how far its name stands in."""

    balance: Balance
    depth: int
    icon: str
    days_left: Decimal | None


@page
@require_GET
def tree(request: PersonRequest) -> HttpResponseBase:
    """The upper levels of the tree, or with `q` every budget of that name, page by page. Missions' budgets are on the
    page of the budget above them; those of missions that are over are left out until asked for."""
    principal = request.principal
    require_anywhere(principal, Permission.BUDGET_VIEW, "Budgets")
    window = _window(request)
    if request.GET.get("format") == "csv":
        every: Iterable[Balance]
        if _text(request):
            every = _every_found(request, window)
        else:
            every = selectors.tree(principal, window=window, with_over=_with_over(request))
        return csv_response("budgets", _TREE_HEADER, map(_tree_csv_row, _rows(every, 0)))
    context = {
        **(_found(request, window) if _text(request) else _outline(request, window)),
        "window": window,
        "windows": list(WindowKind),
        "currency": tenancy.currency_of(principal),
        "zone": tenancy.zone_of(principal).key,
        "changes": [_change(request, change) for change in selectors.changes_waiting(principal)],
        "asked": _asked(request),
        "alerts": alerts.newest(principal, limit=8),
    }
    return render(request, "budgets/tree.html", context)


@page
@require_GET
def lines(request: PersonRequest, account_id: uuid.UUID) -> HttpResponseBase:
    """One account: its windows, its days, those below it, and every line of its journal and of those below it."""
    principal = request.principal
    require_anywhere(principal, Permission.BUDGET_VIEW, "Budgets")
    balance, below = listing.with_below(
        principal,
        account_id,
        text=_text(request),
        with_over=_with_over(request),
        cursor=request.GET.get("below"),
    )
    windows = [balance, *balance.also]
    show = request.GET.get("show", "")
    show = show if show in SHOWN else "all"
    window = _window(request)
    within = selectors.within(principal, balance, window) if window else None
    kinds = SHOWN[show][1]
    if request.GET.get("format") == "csv":
        return csv_response(f"budget-{account_id}", _CSV_HEADER, _csv_rows(request, account_id, kinds, within))
    found = selectors.lines(
        principal, account_id=account_id, kinds=kinds, within=within, cursor=request.GET.get("cursor")
    )
    days = selectors.spend_per_day(principal, account_id=account_id, days=SPEND_DAYS)
    may_write = principal.has(Permission.BUDGET_WRITE, team_id=balance.team_id)
    context = {
        **_listed(request, below, account_id),
        "balance": balance,
        "windows": windows,
        "lines": found,
        "named_lines": named(request, found.items),
        "show": show,
        "shown": [(code, label) for code, (label, _) in SHOWN.items()],
        "within": within,
        "burn": [day.spent.money for day in days],
        "days_left": _days_left(balance),
        "spend_days": SPEND_DAYS,
        "may_write": may_write,
        "may_ask": _may_ask(request, balance),
        "changes": [_change(request, each) for each in selectors.changes_waiting(principal, account_id=account_id)],
        "decisions": selectors.decisions(principal, account_id),
        "not_made": selectors.changes_not_made(principal, account_id),
    }
    return render(request, "budgets/lines.html", context)


def _outline(request: PersonRequest, window: WindowKind | None) -> dict[str, object]:
    found = selectors.outline(request.principal, window=window)
    return {"rows": list(_rows(found.roots, 0)), "further_down": found.below, "text": ""}


def _found(request: PersonRequest, window: WindowKind | None) -> dict[str, object]:
    return _listed(request, _named(request, window, request.GET.get("below")), None)


def _every_found(request: PersonRequest, window: WindowKind | None) -> Iterator[Balance]:
    for found in every_page(lambda cursor: _named(request, window, cursor, selectors.MAX_PAGE)):
        yield from found.items


def _named(
    request: PersonRequest, window: WindowKind | None, cursor: str | None, limit: int = 50
) -> listing.BalancePage:
    return listing.named(
        request.principal,
        _text(request),
        window=window,
        with_over=_with_over(request),
        cursor=cursor,
        limit=limit,
    )


def _listed(request: PersonRequest, found: listing.BalancePage, account_id: uuid.UUID | None) -> dict[str, object]:
    """What budgets/rows.html shows of a page of budgets, whose cursor is not that of the lines."""
    text, with_over = _text(request), _with_over(request)
    return {
        "rows": list(_rows(found.items, 0)),
        "rows_page": found,
        "text": text,
        "left_out": 0 if with_over else listing.count_over(request.principal, account_id=account_id, text=text),
        "with_ended": with_over,
    }


def _with_over(request: PersonRequest) -> bool:
    return bool(request.GET.get("ended"))


def _text(request: PersonRequest) -> str:
    return request.GET.get("q", "").strip()[:100]


def _window(request: PersonRequest) -> WindowKind | None:
    given = request.GET.get("window", "")
    return WindowKind(given) if given in WindowKind.values else None


def _may_ask(request: PersonRequest, balance: Balance) -> bool:
    runs_missions = request.principal.has(Permission.MISSION_OPERATE, team_id=balance.team_id)
    return runs_missions and not balance.closed and balance.team_id is not None and balance.limits.money is not None


def _change(request: PersonRequest, change: LimitChange) -> Waiting:
    principal = request.principal
    may = principal.has(Permission.BUDGET_WRITE, team_id=change.account.team_id)
    own = change.proposer_id == principal.id
    return Waiting(change, WindowKind(change.kind), may_answer=may and not own, may_withdraw=may and own)


def _asked(request: PersonRequest) -> Sequence[Action]:
    """The last requests for more that the viewer may see, whatever came of them."""
    filters = governance.ActionFilters(kind="budget.topup")
    return governance.actions(principal=request.principal, filters=filters, limit=8).items


def with_titles(request: PersonRequest, found: Sequence[LedgerLine]) -> list[tuple[LedgerLine, str]]:
    """Each line with the title of its action, where it has one that the viewer may see, or what else it was for."""
    ids = [line.action_id for line in found if line.action_id is not None]
    titles = governance.action_titles(request.principal, ids)
    return [(line, _what_for(line, titles)) for line in found]


def _what_for(line: LedgerLine, titles: Mapping[uuid.UUID, str]) -> str:
    if line.action_id is not None:
        return titles.get(line.action_id, "")
    return "sandbox time" if line.is_sandbox_time else ""


def named(request: PersonRequest, found: Sequence[LedgerLine]) -> list[NamedLine]:
    """Each line with what it was for, as far as the viewer may see it. Three queries, whatever the number of lines."""
    principal = request.principal
    missions = agents.mission_titles_and_agents(principal, (line.mission_id for line in found))
    budgets = selectors.names_of(principal, (line.account_id for line in found))
    return [
        NamedLine(line, title, *missions.get(line.mission_id, ("", "")), budget=budgets.get(line.account_id, ""))
        for line, title in with_titles(request, found)
    ]


def _rows(balances: Iterable[Balance], depth: int) -> Iterator[Row]:
    for balance in balances:
        icon = _ICONS.get(balance.level, "budget")
        yield Row(balance, min(depth, 4), icon, _days_left(balance))
        yield from _rows(balance.children, depth + 1)


def _days_left(balance: Balance) -> Decimal | None:
    """Whole ones, at that burn: 0 is less than a day. None without a limit or without any spending."""
    if balance.left.money is None or balance.burn_per_day <= 0:
        return None
    days = balance.left.money / balance.burn_per_day
    return min(days.quantize(Decimal(1), ROUND_FLOOR), Decimal(9999))


def _tree_csv_row(row: Row) -> Sequence[object]:
    entry = row.balance
    return (
        *(entry.name, entry.level.value, row.depth, entry.window.value, entry.currency, entry.limits.money),
        *(entry.held.money, entry.spent.money, entry.overrun.money, entry.left.money, entry.burn_per_day),
        *(row.days_left, "yes" if entry.frozen else "no", entry.account_id),
    )


def _csv_rows(
    request: PersonRequest, account_id: uuid.UUID, kinds: Sequence[str], within: Balance | None
) -> Iterator[Sequence[object]]:
    read = functools.partial(
        selectors.lines,
        request.principal,
        account_id=account_id,
        kinds=kinds,
        within=within,
        limit=selectors.MAX_PAGE,
    )
    for found in every_page(lambda cursor: read(cursor=cursor)):
        yield from map(_csv_row, named(request, found.items))


def _csv_row(entry: NamedLine) -> Sequence[object]:
    line, amounts = entry.line, entry.line.amounts
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
        entry.mission,
        entry.agent,
        entry.budget,
    )
