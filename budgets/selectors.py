"""What may be read of budgets: the tree with what is left, the journal, spend per day. Never a query per account."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import Sum

from budgets.models import Account, AccountLimit, DailySpend, JournalEntry
from budgets.types import Amounts, Balance, DayOfSpend, LedgerLine, Level, Limits, WindowKind
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, invalid, not_found
from controlplane.tenancy.types import Permission, Principal

BURN_DAYS: Final = 7
MAX_PAGE: Final = 200
# The window that stands for an account which has several: the longest one that limits anything.
_ORDER: Final = (WindowKind.TOTAL, WindowKind.MONTH, WindowKind.WEEK, WindowKind.DAY)
_BALANCES: Final = """
SELECT a.id, a.name, a.level, a.parent_id, a.team_id, a.subject_type, a.subject_id, a.frozen, o.currency, l.kind,
    CASE WHEN w.id IS NULL THEN l.money ELSE w.limit_money END,
    CASE WHEN w.id IS NULL THEN l.tokens ELSE w.limit_tokens END,
    CASE WHEN w.id IS NULL THEN l.steps ELSE w.limit_steps END,
    coalesce(w.held_money, 0), coalesce(w.held_tokens, 0), coalesce(w.held_steps, 0),
    coalesce(w.spent_money, 0), coalesce(w.spent_tokens, 0), coalesce(w.spent_steps, 0),
    coalesce(w.overrun_money, 0), coalesce(w.overrun_tokens, 0), coalesce(w.overrun_steps, 0),
    coalesce(w.frozen, a.frozen), s.starts_at, budgets_ends_at(l.kind, o.time_zone, s.starts_at)
FROM budgets_account AS a
JOIN tenancy_organisation AS o ON o.id = a.organisation_id
JOIN budgets_accountlimit AS l ON l.account_id = a.id
CROSS JOIN LATERAL (SELECT budgets_starts_at(l.kind, o.time_zone, now()) AS starts_at) AS s
LEFT JOIN budgets_window AS w ON w.account_id = a.id AND w.kind = l.kind AND w.starts_at = s.starts_at
WHERE {where} ORDER BY a.depth, a.name, a.id
"""


@dataclass(frozen=True)
class LinePage:
    """Newest first. `next` is the cursor of the following page, None on the last."""

    items: Sequence[LedgerLine]
    next: str | None


def tree(principal: Principal) -> list[Balance]:
    """Every budget the principal may see, nested; the roots are those whose parent they may not see. Two queries."""
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW)
    balances = _balances(visible.values("pk"))
    if not balances:
        return []
    return _nested(_with_burn(balances, principal.organisation_id))


def balance(principal: Principal, account_id: uuid.UUID) -> Balance:
    """One budget with everything below it. Raises 404 `budget.not_found`."""
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW)
    balances = _balances(visible.filter(path__contains=[account_id]).values("pk"))
    if account_id not in balances:
        raise not_found("budget")
    roots = _nested(_with_burn(balances, principal.organisation_id))
    return next(root for root in roots if root.account_id == account_id)


def mission_spend(*, mission_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Balance]:
    """What each mission's own budget has left, for missions the caller may see; absent without one. One query."""
    wanted = list(mission_ids)
    if not wanted:
        return {}
    rows = _read("a.subject_type = 'mission' AND a.subject_id = ANY(%s)", [wanted])
    return {found.subject_id: found for found in _by_account(rows).values() if found.subject_id is not None}


def limits_decided(*, account_id: uuid.UUID, window: WindowKind) -> Limits | None:
    """The limits last decided for an account, also where spending keeps them from being reached yet; None without one.
    For callers that have judged access to what the account is for."""
    found = AccountLimit.objects.filter(account_id=account_id, kind=window).first()
    return Limits(found.money, found.tokens, found.steps) if found else None


def lines(
    principal: Principal,
    *,
    account_id: uuid.UUID | None = None,
    mission_id: uuid.UUID | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> LinePage:
    """The journal of an account and all below it, or of a mission's account. Raises 404, 422 `cursor.invalid`."""
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW)
    if account_id is not None:
        visible = visible.filter(path__contains=[account_id])
    if mission_id is not None:
        visible = visible.filter(subject_type="mission", subject_id=mission_id)
    accounts = dict(visible.values_list("pk", "organisation__currency"))
    if not accounts or (account_id is not None and account_id not in accounts):
        raise not_found("budget")
    rows = JournalEntry.objects.filter(account_id__in=list(accounts))
    if cursor is not None:
        if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
            raise invalid("cursor.invalid", "This page address is not one of ours.", FieldError("/cursor", "a cursor"))
        rows = rows.filter(pk__lt=int(cursor))
    size = max(1, min(limit, MAX_PAGE))
    found = list(rows.order_by("-id")[: size + 1])
    items = [_line(row, accounts[row.account_id]) for row in found[:size]]
    return LinePage(items, str(found[size - 1].pk) if len(found) > size else None)


def spend_per_day(principal: Principal, *, account_id: uuid.UUID | None = None, days: int = 30) -> list[DayOfSpend]:
    """What was charged on each of the last days with any charge, oldest first. Reads the daily sums only."""
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW)
    if account_id is not None:
        if not visible.filter(pk=account_id).exists():
            raise not_found("budget")
        visible = visible.filter(path__contains=[account_id])
    rows = (
        DailySpend.objects.filter(account__in=visible, day__gt=(now() - timedelta(days=days)).date())
        .values("day")
        .annotate(Sum("money"), Sum("tokens"), Sum("steps"))
        .order_by("day")
    )
    return [DayOfSpend(row["day"], Amounts(row["money__sum"], row["tokens__sum"], row["steps__sum"])) for row in rows]


def _balances(visible: Any) -> dict[uuid.UUID, Balance]:
    try:
        sql, parameters = visible.query.sql_with_params()
    except EmptyResultSet:
        return {}
    return _by_account(_read(f"a.id IN ({sql})", list(parameters)))


def _read(where: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
    """`where` is made here or by the ORM, never of anybody's input."""
    with connection.cursor() as cursor:
        cursor.execute(_BALANCES.format(where=where), parameters)
        return list(cursor.fetchall())


def _by_account(rows: Iterable[tuple[Any, ...]]) -> dict[uuid.UUID, Balance]:
    found: dict[uuid.UUID, list[Balance]] = defaultdict(list)
    for row in rows:
        entry = _entry(row)
        found[entry.account_id].append(entry)
    result = {}
    for account_id, windows in found.items():
        windows.sort(key=lambda entry: (entry.limits == Limits(), _ORDER.index(entry.window)))
        result[account_id] = replace(windows[0], also=tuple(windows[1:]))
    return result


def _entry(row: tuple[Any, ...]) -> Balance:
    window = WindowKind(row[9])
    limits, held, spent, overrun = Limits(*row[10:13]), Amounts(*row[13:16]), Amounts(*row[16:19]), Amounts(*row[19:22])
    starts_at: datetime | None = row[23]
    ends_at: datetime | None = row[24]
    if window is WindowKind.TOTAL:
        starts_at = ends_at = None
    return Balance(
        account_id=row[0],
        name=row[1],
        level=Level(row[2]),
        parent_id=row[3],
        team_id=row[4],
        subject_type=row[5],
        subject_id=row[6],
        currency=row[8],
        window=window,
        limits=limits,
        held=held,
        spent=spent,
        overrun=overrun,
        left=_left(limits, held, spent, overrun),
        frozen=row[7] or row[22],
        starts_at=starts_at,
        ends_at=ends_at,
    )


def _left(limits: Limits, held: Amounts, spent: Amounts, overrun: Amounts) -> Limits:
    def of(name: str) -> Any:
        limit = getattr(limits, name)
        if limit is None:
            return None
        return max(limit - getattr(held, name) - getattr(spent, name) - getattr(overrun, name), type(limit)(0))

    return Limits(of("money"), of("tokens"), of("steps"))


def _with_burn(balances: Mapping[uuid.UUID, Balance], organisation_id: uuid.UUID) -> dict[uuid.UUID, Balance]:
    """Average money a day over the last week, summed up the tree. Only leaves have daily sums."""
    since = (now() - timedelta(days=BURN_DAYS)).date()
    burn: dict[uuid.UUID, Decimal] = defaultdict(Decimal)
    rows = DailySpend.objects.filter(account__organisation_id=organisation_id, day__gt=since)
    for path, money in rows.values_list("account__path").annotate(Sum("money")):
        for account_id in path:
            burn[account_id] += money
    return {key: replace(entry, burn_per_day=burn[key] / BURN_DAYS) for key, entry in balances.items()}


def _nested(balances: Mapping[uuid.UUID, Balance]) -> list[Balance]:
    """Rows come by depth, so from the end every child is complete before its parent is built."""
    children: dict[uuid.UUID | None, list[Balance]] = defaultdict(list)
    roots: list[Balance] = []
    for entry in reversed(list(balances.values())):
        whole = replace(entry, children=tuple(reversed(children.pop(entry.account_id, []))))
        if entry.parent_id in balances:
            children[entry.parent_id].append(whole)
        else:
            roots.append(whole)
    return list(reversed(roots))


_SENTENCES: Final = {
    "reserve": "Held",
    "dispatch": "In use",
    "settle": "Charged",
    "correct": "Charge corrected",
    "overrun": "Charged beyond the limit",
    "void": "Released",
    "expire": "Released, never used",
    "extend": "Kept for longer",
    "allocation": "Limit set",
    "freeze": "Frozen",
    "unfreeze": "Released from the freeze",
    "guard": "Loop guard set",
}


def _line(row: JournalEntry, currency: str) -> LedgerLine:
    sentence = _SENTENCES.get(row.kind, row.kind)
    return LedgerLine(
        id=row.pk,
        at=row.at,
        kind=row.kind,
        amounts=Amounts(row.money, row.tokens, row.steps),
        hold_id=row.hold_id,
        mission_id=row.mission_id,
        action_id=row.action_id,
        description=f"{sentence}: {row.note}" if row.note else sentence,
        currency=currency,
    )
