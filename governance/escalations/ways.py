"""Where a question goes when it is opened: the first route that fits decides."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from controlplane.common.written_amounts import written_amount
from governance.approval_models import ApprovalRoute
from governance.models import Action
from governance.types import Prepared

_MOST: Final = Decimal(10) ** 15
_PLACES: Final = Decimal("1e-12")  # as a question keeps it
_UNKNOWN: Final = Decimal("Infinity")  # what can't be read as an amount can't be shown to be small


@dataclass(frozen=True)
class Asked:
    """What a route looks at."""

    kind: str
    team_id: uuid.UUID
    arguments: Mapping[str, Any]
    amount: Decimal | None
    irreversible: bool


@dataclass(frozen=True)
class Way:
    """Whom one question asks, and how long each tier has."""

    route_id: uuid.UUID | None = None
    route_name: str = ""
    group_id: uuid.UUID | None = None
    next_group_id: uuid.UUID | None = None
    needed: int = 1
    answer_seconds: int = 3600
    next_seconds: int | None = None
    amount: Decimal | None = None
    irreversible: bool = False

    def deadline(self, opened_at: datetime) -> datetime:
        return opened_at + timedelta(seconds=self.answer_seconds + (self.next_seconds or 0))

    def tier_ends_at(self, opened_at: datetime) -> datetime | None:
        return None if self.next_seconds is None else opened_at + timedelta(seconds=self.answer_seconds)


def way_of(action: Action, prepared: Prepared) -> Way:
    """One query. Without a route that fits: one approver of the team, as long as the kind of action gives."""
    asked = Asked(
        kind=action.kind,
        team_id=action.team_id,
        arguments=action.arguments,
        amount=amount_of(prepared),
        irreversible=prepared.irreversible,
    )
    routes = ApprovalRoute.objects.filter(organisation_id=action.organisation_id).order_by("position")
    return chosen_way(routes, asked, seconds=prepared.escalation_ttl_seconds)


def chosen_way(routes: Iterable[ApprovalRoute], asked: Asked, *, seconds: int) -> Way:
    """`seconds`: how long the kind gives where the route says nothing."""
    for route in routes:
        if not why_not(route, asked):
            return Way(
                route_id=route.pk,
                route_name=route.name,
                group_id=route.group_id,
                next_group_id=route.next_group_id,
                needed=route.needed,
                answer_seconds=seconds if route.answer_seconds is None else route.answer_seconds,
                next_seconds=route.next_seconds,
                amount=_shown(_amount(route, asked)),
                irreversible=asked.irreversible,
            )
    return Way(answer_seconds=seconds, amount=_shown(asked.amount), irreversible=asked.irreversible)


def why_not(route: ApprovalRoute, asked: Asked) -> str:
    """Why the route does not fit, in words; empty when it does."""
    if route.kind and route.kind != asked.kind:
        return "another kind of action"
    if route.team_id is not None and route.team_id != asked.team_id:
        return "another team"
    if route.only_irreversible and not asked.irreversible:
        return "it can be undone"
    if route.amount_above is not None:
        amount = _amount(route, asked)
        if amount is None:
            return f"no argument “{route.amount_argument}”" if route.amount_argument else "no amount is known"
        if amount <= route.amount_above:
            return f"not above {written_amount(route.amount_above)}"
    return ""


def amount_of(prepared: Prepared) -> Decimal | None:
    """What is at stake: what the kind says, else what the action costs."""
    if prepared.amount is not None:
        return prepared.amount
    return prepared.budget.money if prepared.budget else None


def _shown(amount: Decimal | None) -> Decimal | None:
    """What the question is kept with: an amount that is one."""
    known = amount is not None and amount.is_finite() and amount.copy_abs() < _MOST
    return amount.quantize(_PLACES) if amount is not None and known else None


def _amount(route: ApprovalRoute, asked: Asked) -> Decimal | None:
    if not route.amount_argument:
        return asked.amount
    given = asked.arguments.get(route.amount_argument)
    if given is None:
        return None
    if isinstance(given, bool):
        return _UNKNOWN
    try:
        amount = Decimal(str(given))
    except InvalidOperation:
        return _UNKNOWN
    return amount.copy_abs() if amount.is_finite() else _UNKNOWN  # abs() fails on exponents that are far out
