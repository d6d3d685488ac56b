"""Budgets, holds and ledger lines as pages of a list. What the tree shows at once is in `selectors`."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db.models import Q, QuerySet

from budgets import selectors
from budgets.models import Account, Hold
from budgets.selectors import LinePage
from budgets.types import Amounts, Balance, HoldState
from controlplane.common.cursors import page
from controlplane.common.errors import not_found
from controlplane.tenancy.types import Permission, Principal


@dataclass(frozen=True)
class BalancePage:
    """Newest first. `next` is the cursor of the following page, None on the last."""

    items: Sequence[Balance]
    next: str | None


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
    found = page(visible, cursor=cursor, limit=limit)
    ids = [account.pk for account in found.items]
    known = selectors.balances_of(principal, ids)
    return BalancePage([known[key] for key in ids if key in known], found.older)


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
