"""What may be read of budgets: the tree with what is left, the journal, spend per day. Never a query per account."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from itertools import accumulate, takewhile
from typing import Any, Final

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import Count, Q

from budgets.changes import given_alone
from budgets.journal import Narrowed, Window, newest
from budgets.models import Account, AccountLimit, Allocation, Hold, JournalEntry, LimitChange
from budgets.spending import in_window, windowed, with_burn
from budgets.spending import spend_per_day as spend_per_day  # one of what may be read
from budgets.types import Amounts, Balance, ChangeState, HoldState, LedgerLine, Level, Limits, WindowKind
from controlplane.common.cursors import foreign_cursor
from controlplane.common.errors import not_found
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.selectors import zone_of
from controlplane.tenancy.types import Permission, Principal

MAX_PAGE: Final = 200
OUTLINE_ROWS: Final = 100
OVER: Final = Q(level=Level.MISSION.value, closed_at__isnull=False)
# The window that stands for an account which has several: the longest one that limits anything.
_ORDER: Final = (WindowKind.TOTAL, WindowKind.MONTH, WindowKind.WEEK, WindowKind.DAY)
_BALANCES: Final = """
SELECT a.id, a.name, a.level, a.parent_id, a.team_id, a.subject_type, a.subject_id, a.frozen, o.currency, l.kind,
    l.money, l.tokens, l.steps,
    coalesce(w.held_money, 0), coalesce(w.held_tokens, 0), coalesce(w.held_steps, 0),
    coalesce(w.spent_money, 0), coalesce(w.spent_tokens, 0), coalesce(w.spent_steps, 0),
    coalesce(w.overrun_money, 0), coalesce(w.overrun_tokens, 0), coalesce(w.overrun_steps, 0),
    coalesce(w.frozen, a.frozen), s.starts_at, budgets_ends_at(l.kind, o.time_zone, s.starts_at),
    a.frozen, a.frozen_reason, a.closed_at IS NOT NULL, w.id, a.created_at
FROM budgets_account AS a
JOIN tenancy_organisation AS o ON o.id = a.organisation_id
JOIN budgets_accountlimit AS l ON l.account_id = a.id
CROSS JOIN LATERAL (SELECT budgets_starts_at(l.kind, o.time_zone, now()) AS starts_at) AS s
LEFT JOIN budgets_window AS w ON w.account_id = a.id AND w.kind = l.kind AND w.starts_at = s.starts_at
WHERE {where} ORDER BY a.depth, a.name, a.id
"""


@dataclass(frozen=True)
class Outline:
    """The upper levels of the tree, and how many budgets that are not missions' are on lower ones."""

    roots: Sequence[Balance]
    below: int


@dataclass(frozen=True)
class LinePage:
    """Newest first. `next` is the cursor of the following page, None on the last."""

    items: Sequence[LedgerLine]
    next: str | None


def tree(principal: Principal, *, window: WindowKind | None = None, with_over: bool = True) -> list[Balance]:
    """Every budget the principal may see, nested; the roots are those whose parent they may not see. Three queries.

    `window`: each account in that window, with what was spent in it even where it limits nothing (one query more).
    `with_over`: also those of missions that are over, which are most of them after a while.
    """
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW)
    if not with_over:
        visible = visible.exclude(OVER)
    return _nested(_shown(principal, visible.values("pk"), window))


def outline(principal: Principal, *, window: WindowKind | None = None) -> Outline:
    """The tree without the budgets of missions, and only as many whole levels of it as fit a page."""
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW).exclude(level=Level.MISSION.value)
    sizes = dict(visible.order_by("depth").values_list("depth").annotate(Count("pk")))
    fitting = list(takewhile(lambda pair: pair[1] <= OUTLINE_ROWS, zip(sizes, accumulate(sizes.values()), strict=True)))
    deepest, rows = fitting[-1] if fitting else (min(sizes, default=0), OUTLINE_ROWS)
    ids = visible.filter(depth__lte=deepest).order_by("depth", "name", "pk").values("pk")[:OUTLINE_ROWS]
    return Outline(_nested(_shown(principal, ids, window)), max(sum(sizes.values()) - rows, 0))


def widest(principal: Principal) -> Balance | None:
    """The budget nearest the root that the principal may see, without those below it; None without any. One query."""
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW)
    top = visible.order_by("depth", "name", "pk").values("pk")[:1]
    return next(iter(_balances(top).values()), None)


def balance(principal: Principal, account_id: uuid.UUID) -> Balance:
    """One budget, without those below it. Raises 404 `budget.not_found`."""
    found = balances_of(principal, [account_id]).get(account_id)
    if found is None:
        raise not_found("budget")
    return found


def balances_of(
    principal: Principal, account_ids: Iterable[uuid.UUID], *, window: WindowKind | None = None
) -> dict[uuid.UUID, Balance]:
    """These budgets as far as the principal may see them, each without what is below it. As `tree`, not nested."""
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW).filter(pk__in=list(account_ids))
    return _shown(principal, visible.values("pk"), window)


def within(principal: Principal, balance: Balance, window: WindowKind) -> Balance:
    """A budget in this kind of window: its own, or the time alone where it has none."""
    return windowed(balance, window, zone_of(principal))


def mission_spend(*, mission_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Balance]:
    """What each mission's own budget has left, for missions the caller may see; absent without one. One query."""
    wanted = list(mission_ids)
    if not wanted:
        return {}
    rows = _read("a.subject_type = 'mission' AND a.subject_id = ANY(%s)", [wanted])
    return {found.subject_id: found for found in _by_account(rows).values() if found.subject_id is not None}


def ceiling(*, account_id: uuid.UUID) -> Balance | None:
    """Of this budget and all above it, the one with the least money left in any of its windows: whatever a budget below
    says, no more can be spent. None where nothing limits money. For callers that have judged access to the account."""
    rows = _read("a.id IN (SELECT unnest(path) FROM budgets_account WHERE id = %s)", [account_id])
    limiting = [entry for entry in map(_entry, rows) if entry.left.money is not None]
    return min(limiting, key=lambda entry: entry.left.money or Decimal(0), default=None)


def spend_of(*, account_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Balance]:
    """What each of these budgets has left, for callers that have judged access to what they are for. One query."""
    wanted = list(account_ids)
    return _by_account(_read("a.id = ANY(%s)", [wanted])) if wanted else {}


def charged(*, hold_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, Decimal]:
    """What was charged in the end for each of these holds; absent while it is open or released. One query, none for no
    ids. For callers that have judged access to what was held for."""
    wanted = list(hold_ids)
    rows = Hold.objects.filter(pk__in=wanted, state=HoldState.SETTLED.value).values_list("pk", "actual_money")
    return {pk: money or Decimal(0) for pk, money in rows} if wanted else {}


def limits_decided(*, account_id: uuid.UUID, window: WindowKind, at: datetime | None = None) -> Limits | None:
    """The limits last decided for an account, now or by that moment, also where spending keeps them from being reached
    yet; None without one. For callers that have judged access to what the account is for."""
    found: AccountLimit | Allocation | None
    if at is None:
        found = AccountLimit.objects.filter(account_id=account_id, kind=window).first()
    else:
        found = Allocation.objects.filter(account_id=account_id, kind=window, at__lte=at).order_by("-at").first()
    return Limits(found.money, found.tokens, found.steps) if found else None


def lines(
    principal: Principal,
    *,
    account_id: uuid.UUID | None = None,
    mission_id: uuid.UUID | None = None,
    kinds: Sequence[str] = (),
    within: Balance | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> LinePage:
    """The journal of an account and all below it, or of a mission's account. `kinds`: only such lines. `within`: only
    what counts in this window of the account. Three queries. Raises 404, 422 `cursor.invalid`."""
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW)
    if mission_id is not None:
        visible = visible.filter(subject_type="mission", subject_id=mission_id)
    known = visible if account_id is None else visible.filter(pk=account_id)
    currency = known.order_by("depth").values_list("organisation__currency", flat=True).first()
    if currency is None:
        raise not_found("budget")
    if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise foreign_cursor()
    size = max(1, min(limit, MAX_PAGE))
    found = newest(
        visible if account_id is None else visible.filter(path__contains=[account_id]),
        organisation_id=principal.organisation_id,
        narrowed=Narrowed(
            kinds,
            Window(within.window_id, within.starts_at) if within is not None else None,
            int(cursor) if cursor is not None else None,
        ),
        limit=size + 1,
    )
    items = [line_of(row, currency) for row in found[:size]]
    return LinePage(items, str(found[size - 1].pk) if len(found) > size else None)


def names_of(principal: Principal, account_ids: Iterable[uuid.UUID]) -> dict[uuid.UUID, str]:
    """Of budgets the principal may see. One query, none without ids."""
    wanted = set(account_ids)
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW).filter(pk__in=wanted)
    return dict(visible.values_list("pk", "name")) if wanted else {}


def changes_waiting(principal: Principal, *, account_id: uuid.UUID | None = None) -> list[LimitChange]:
    """Limits that wait for a second person, the oldest first, with their accounts."""
    rows = LimitChange.objects.restrict(principal, Permission.BUDGET_VIEW).filter(state=ChangeState.OPEN)
    if account_id is not None:
        rows = rows.filter(account_id=account_id)
    return list(rows.select_related("account", "account__organisation").order_by("proposed_at")[:MAX_PAGE])


def change_waiting(principal: Principal, account_id: uuid.UUID, window: WindowKind) -> LimitChange | None:
    """What waits for a second person in this window; None for nothing."""
    rows = LimitChange.objects.restrict(principal, Permission.BUDGET_VIEW).filter(state=ChangeState.OPEN)
    return rows.filter(account_id=account_id, kind=window).first()


def changes_not_made(principal: Principal, account_id: uuid.UUID, *, limit: int = 5) -> list[LimitChange]:
    """The last requests of a budget that came to nothing: refused, withdrawn or replaced, newest first."""
    rows = LimitChange.objects.restrict(principal, Permission.BUDGET_VIEW).filter(account_id=account_id)
    left = rows.exclude(state__in=(ChangeState.OPEN, ChangeState.CONFIRMED))
    return list(left.order_by("-decided_at", "-pk")[:limit])


def limit_of(principal: Principal, account_id: uuid.UUID, window: WindowKind) -> Limits:
    """What people want this window to be limited to. Raises 404 `budget.not_found`."""
    if not Account.objects.restrict(principal, Permission.BUDGET_VIEW).filter(pk=account_id).exists():
        raise not_found("budget")
    row = AccountLimit.objects.filter(account_id=account_id, kind=window).first()
    return Limits() if row is None else Limits(row.money, row.tokens, row.steps)


def may_give_alone(principal: Principal, account_id: uuid.UUID, window: WindowKind) -> Decimal:
    """By how much one person of the organisation may raise a limit now without a second one."""
    most: Decimal = Organisation.objects.values_list("sign_off_above", flat=True).get(pk=principal.organisation_id)
    return max(Decimal(0), most - given_alone(account_id, window))


def decisions(principal: Principal, account_id: uuid.UUID, *, limit: int = 10) -> list[Allocation]:
    """The last decisions about the limits of an account the principal may see, newest first."""
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW).filter(pk=account_id)
    return list(Allocation.objects.filter(account__in=visible).order_by("-at", "-id")[:limit])


def _shown(principal: Principal, ids: Any, window: WindowKind | None) -> dict[uuid.UUID, Balance]:
    """The accounts of a subquery, with what was spent a day, as they stand in one window where one is named."""
    found = _balances(ids)
    if not found:
        return found
    zone = zone_of(principal)
    if window is not None:
        found = in_window(found, principal.organisation_id, zone, window)
    return with_burn(found, principal.organisation_id, zone)


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
        frozen_by_person=row[25],
        frozen_reason=row[26],
        closed=row[27],
        window_id=row[28],
        opened_at=row[29],
    )


def _left(limits: Limits, held: Amounts, spent: Amounts, overrun: Amounts) -> Limits:
    def of(name: str) -> Any:
        limit = getattr(limits, name)
        if limit is None:
            return None
        return max(limit - getattr(held, name) - getattr(spent, name) - getattr(overrun, name), type(limit)(0))

    return Limits(of("money"), of("tokens"), of("steps"))


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


def line_of(row: JournalEntry, currency: str) -> LedgerLine:
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
        account_id=row.account_id,
    )
