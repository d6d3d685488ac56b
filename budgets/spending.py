"""What was charged on days, summed up the tree. Only leaves have daily sums."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from zoneinfo import ZoneInfo

from django.db import connection
from django.db.models import Sum

from budgets.models import Account, DailySpend
from budgets.types import Amounts, Balance, DayOfSpend, Limits, WindowKind
from budgets.zones import DAY_OF_HOLD
from controlplane.common.clock import now
from controlplane.common.errors import not_found
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.types import Permission, Principal

BURN_DAYS: Final = 7
# Each leaf's days first and then up its path: there are far more days than leaves.
_BELOW: Final = """
SELECT p.id, sum(s.money), sum(s.tokens), sum(s.steps)
FROM (
    SELECT d.account_id, sum(d.money) AS money, sum(d.tokens) AS tokens, sum(d.steps) AS steps
    FROM budgets_dailyspend AS d WHERE d.day >= %(since)s AND d.account_id IN (
        SELECT id FROM budgets_account WHERE organisation_id = %(organisation)s AND path && %(accounts)s::uuid[]
    ) GROUP BY d.account_id
) AS s
JOIN budgets_account AS a ON a.id = s.account_id
CROSS JOIN LATERAL unnest(a.path) AS p (id)
WHERE p.id = ANY(%(accounts)s::uuid[])
GROUP BY p.id
"""
_HELD_BELOW: Final = f"""
SELECT p.id, sum(h.money), sum(h.tokens), sum(h.steps)
FROM budgets_hold AS h
JOIN tenancy_organisation AS o ON o.id = h.organisation_id
JOIN budgets_account AS a ON a.id = h.account_id
CROSS JOIN LATERAL unnest(a.path) AS p (id)
WHERE h.closed_at IS NULL AND h.organisation_id = %(organisation)s
    AND {DAY_OF_HOLD} >= %(since)s AND p.id = ANY(%(accounts)s::uuid[])
GROUP BY p.id
"""  # noqa: S608 only a constant


def spend_per_day(principal: Principal, *, account_id: uuid.UUID | None = None, days: int = 30) -> list[DayOfSpend]:
    """What was charged on each of the last local days with any charge, oldest first. Reads the daily sums only."""
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW)
    if account_id is not None:
        if not visible.filter(pk=account_id).exists():
            raise not_found("budget")
        visible = visible.filter(path__contains=[account_id])
    after = tenancy.today_of(principal) - timedelta(days=days)
    rows = (
        DailySpend.objects.filter(account__in=visible, day__gt=after)
        .values("day")
        .annotate(Sum("money"), Sum("tokens"), Sum("steps"))
        .order_by("day")
    )
    return [DayOfSpend(row["day"], Amounts(row["money__sum"], row["tokens__sum"], row["steps__sum"])) for row in rows]


def with_burn(
    balances: Mapping[uuid.UUID, Balance], organisation_id: uuid.UUID, zone: ZoneInfo
) -> dict[uuid.UUID, Balance]:
    """With the mean money a day over the last week, today included, or since the budget began where that is less. Its
    first day counts as a whole one: half an hour's spending says little of the 47 that follow."""
    moment = now()
    since = moment.astimezone(zone).date() - timedelta(days=BURN_DAYS - 1)
    spent = _below(balances, organisation_id, since)
    return {
        key: replace(entry, burn_per_day=spent[key].money / _days_of(entry, moment)) for key, entry in balances.items()
    }


def _days_of(balance: Balance, moment: datetime) -> Decimal:
    """Over how many days, at least one, its burn is averaged."""
    if balance.opened_at is None:
        return Decimal(BURN_DAYS)
    age = Decimal((moment - balance.opened_at) // timedelta(minutes=1)) / (24 * 60)
    return min(max(age, Decimal(1)), Decimal(BURN_DAYS))


def in_window(
    balances: Mapping[uuid.UUID, Balance], organisation_id: uuid.UUID, zone: ZoneInfo, window: WindowKind
) -> dict[uuid.UUID, Balance]:
    """Accounts that have this kind of window as it is; the others as what was held and charged below them in it."""
    start = start_of(window, zone)
    since = date.min if start is None else start.date()
    spent = _below(balances, organisation_id, since)
    held = _sums(_HELD_BELOW, {"accounts": list(balances), "organisation": organisation_id, "since": since})
    return {
        key: _own(balance, window) or _without_limit(balance, window, start, held=held[key], spent=spent[key])
        for key, balance in balances.items()
    }


def windowed(balance: Balance, window: WindowKind, zone: ZoneInfo) -> Balance:
    """One account in this kind of window; where it has none, that is the time alone, without what was spent in it."""
    return _own(balance, window) or _without_limit(balance, window, start_of(window, zone))


def start_of(window: WindowKind, zone: ZoneInfo) -> datetime | None:
    """When the window of this kind that holds now began; None: at the beginning."""
    today = now().astimezone(zone).date()
    match window:
        case WindowKind.DAY:
            first = today
        case WindowKind.WEEK:
            first = today - timedelta(days=today.weekday())
        case WindowKind.MONTH:
            first = today.replace(day=1)
        case WindowKind.TOTAL:
            return None
    return datetime.combine(first, time(), zone)


def _own(balance: Balance, window: WindowKind) -> Balance | None:
    return next((entry for entry in (balance, *balance.also) if entry.window == window), None)


def _without_limit(
    balance: Balance,
    window: WindowKind,
    start: datetime | None,
    *,
    held: Amounts = Amounts(),  # noqa: B008 immutable
    spent: Amounts = Amounts(),  # noqa: B008 immutable
) -> Balance:
    return replace(
        balance,
        window=window,
        limits=Limits(),
        left=Limits(),
        held=held,
        spent=spent,
        overrun=Amounts(),
        starts_at=start,
        ends_at=None,
        also=(),
        window_id=None,
    )


def _below(accounts: Collection[uuid.UUID], organisation_id: uuid.UUID, since: date) -> defaultdict[uuid.UUID, Amounts]:
    """What was charged since that day to each of these accounts and all below it."""
    return _sums(_BELOW, {"accounts": list(accounts), "organisation": organisation_id, "since": since})


def _sums(sql: str, parameters: Mapping[str, Any]) -> defaultdict[uuid.UUID, Amounts]:
    found: defaultdict[uuid.UUID, Amounts] = defaultdict(Amounts)
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        found.update((row[0], Amounts(*row[1:])) for row in cursor.fetchall())
    return found
