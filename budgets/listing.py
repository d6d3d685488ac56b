"""Budgets, holds and ledger lines as pages of a list. What the tree shows at once is in `selectors`."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db.models import Q, QuerySet

from budgets import selectors
from budgets.models import Account, Hold
from budgets.selectors import OVER, LinePage
from budgets.types import Amounts, Balance, HoldState, WindowKind
from controlplane.common.cursors import page
from controlplane.common.errors import not_found
from controlplane.tenancy.types import Permission, Principal


@dataclass(frozen=True)
class BalancePage:
    """Newest first. `next` and `previous` are the cursors of the pages beside it, None at an end."""

    items: Sequence[Balance]
    next: str | None
    previous: str | None = None


@dataclass(frozen=True)
class Held:
    """A hold as people read it. `charged` is nothing until it is settled."""

    id: uuid.UUID
    account_id: uuid.UUID
    currency: str
    state: HoldState
    held: Amounts
    charged: Amounts
    provisional: bool
    action_id: uuid.UUID | None
    mission_id: uuid.UUID | None
    created_at: datetime
    expires_at: datetime
    closed_at: datetime | None


def balances(principal: Principal, *, level: str | None = None, cursor: str | None = None, limit: int) -> BalancePage:
    """The budgets the principal may see, without what is below them. Raises 422 `cursor.invalid`."""
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW)
    if level is not None:
        visible = visible.filter(level=level)
    found = _page_of(visible, True, cursor, limit)
    return found.with_balances(selectors.balances_of(principal, found.ids))


def named(
    principal: Principal, text: str, *, window: WindowKind | None, with_over: bool, cursor: str | None, limit: int = 50
) -> BalancePage:
    """The budgets with this in their names. `with_over`: also those of missions that are over. Raises 422
    `cursor.invalid`."""
    found = _page_of(_below(principal, None, text), with_over, cursor, limit)
    known = selectors.balances_of(principal, found.ids, window=window)
    return found.with_balances(known)


def with_below(
    principal: Principal,
    account_id: uuid.UUID,
    *,
    text: str = "",
    with_over: bool = False,
    cursor: str | None = None,
    limit: int = 50,
) -> tuple[Balance, BalancePage]:
    """A budget and those directly below it, or with `text` those of that name wherever below it. Raises 404, 422
    `cursor.invalid`."""
    found = _page_of(_below(principal, account_id, text), with_over, cursor, limit)
    known = selectors.balances_of(principal, [account_id, *found.ids])
    if account_id not in known:
        raise not_found("budget")
    return known[account_id], found.with_balances(known)


def count_over(principal: Principal, *, account_id: uuid.UUID | None, text: str = "") -> int:
    """How many of those below an account (None: of all) are of missions that are over."""
    return _below(principal, account_id, text).filter(OVER).count()


@dataclass(frozen=True)
class _Ids:
    ids: Sequence[uuid.UUID]
    older: str | None
    newer: str | None

    def with_balances(self, known: Mapping[uuid.UUID, Balance]) -> BalancePage:
        return BalancePage([known[key] for key in self.ids if key in known], self.older, self.newer)


def _page_of(rows: QuerySet[Account], with_over: bool, cursor: str | None, limit: int) -> _Ids:
    found = page(rows if with_over else rows.exclude(OVER), cursor=cursor, limit=limit)
    return _Ids([account.pk for account in found.items], found.older, found.newer)


def _below(principal: Principal, account_id: uuid.UUID | None, text: str) -> QuerySet[Account]:
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW)
    if text:
        visible = visible.filter(name__icontains=text)
    if account_id is None:
        return visible
    if text:
        return visible.filter(path__contains=[account_id]).exclude(pk=account_id)
    return visible.filter(parent_id=account_id)


def holds(
    principal: Principal,
    *,
    account_id: uuid.UUID | None = None,
    mission_id: uuid.UUID | None = None,
    state: str | None = None,
) -> QuerySet[Hold]:
    """Holds against budgets the principal may see, those below `account_id` included."""
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW)
    if account_id is not None:
        visible = visible.filter(path__contains=[account_id])
    narrowed = Q(account__in=visible)
    if mission_id is not None:
        narrowed &= Q(mission_id=mission_id)
    if state is not None:
        narrowed &= Q(state=state)
    return Hold.objects.filter(narrowed).select_related("organisation")


def hold(principal: Principal, hold_id: uuid.UUID) -> Held:
    """Raises 404."""
    found = holds(principal).filter(pk=hold_id).first()
    if found is None:
        raise not_found("hold")
    return held([found])[0]


def held(rows: Iterable[Hold]) -> list[Held]:
    """Of rows with their organisation."""
    return [
        Held(
            id=row.pk,
            account_id=row.account_id,
            currency=row.organisation.currency,
            state=HoldState(row.state),
            held=Amounts(row.money, row.tokens, row.steps),
            charged=Amounts(row.actual_money or Decimal(0), row.actual_tokens or 0, row.actual_steps or 0),
            provisional=row.provisional,
            action_id=row.action_id,
            mission_id=row.mission_id,
            created_at=row.created_at,
            expires_at=row.expires_at,
            closed_at=row.closed_at,
        )
        for row in rows
    ]


def lines(
    principal: Principal,
    *,
    account_id: uuid.UUID | None = None,
    mission_id: uuid.UUID | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> LinePage:
    """`selectors.lines`, where nothing to see is an empty page. Raises 422 `cursor.invalid`."""
    visible = Account.objects.restrict(principal, Permission.BUDGET_VIEW)
    if account_id is not None:
        visible = visible.filter(pk=account_id)
    if mission_id is not None:
        visible = visible.filter(subject_type="mission", subject_id=mission_id)
    if not visible.exists():
        return LinePage([], None)
    return selectors.lines(principal, account_id=account_id, mission_id=mission_id, cursor=cursor, limit=limit)
