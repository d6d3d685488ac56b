"""What accepted goals cost, as JSON. Days are those of the organisation's time zone."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from rest_framework import serializers

from budgets.costs.types import Check, GoalRow, MissionCost, MissionRow, Span
from budgets.types import Standing
from controlplane.common.errors import FieldError, invalid
from frontend.api.fields import ListQuery, Moment, Money, Query, money
from frontend.api.shapes.budgets import LineOut
from frontend.periods import LONGEST_DAYS

_DEFAULT_DAYS = 28


class SpanQuery(Query):
    first = serializers.DateField(required=False, help_text="First day. Default: four weeks up to the last one.")
    last = serializers.DateField(required=False, help_text="Last day, included. Default: today.")


class SpanListQuery(ListQuery, SpanQuery):
    pass


class EffortOut(serializers.Serializer):  # type: ignore[type-arg]
    """What was tried."""

    attempts = serializers.IntegerField()
    retries = serializers.IntegerField()
    calls = serializers.IntegerField()
    denied = serializers.IntegerField()
    human_seconds = serializers.IntegerField()


class MoneyByStanding(serializers.Serializer):  # type: ignore[type-arg]
    accepted = Money()
    rejected = Money()
    waste = Money()
    open = Money()


class GoalOut(serializers.Serializer):  # type: ignore[type-arg]
    """One kind of goal. Money by the day of the work, goals by the day they were decided on."""

    goal = serializers.CharField(allow_blank=True)
    name = serializers.CharField()
    missions = serializers.IntegerField()
    accepted = serializers.IntegerField()
    money = MoneyByStanding()
    outside = Money(help_text="Charged outside any mission.")
    total = Money()
    cost_per_accepted_goal = Money(allow_null=True)
    waste_percent = serializers.CharField(allow_null=True)
    effort = EffortOut()


class CostCheckOut(serializers.Serializer):  # type: ignore[type-arg]
    """The same money summed from three sides; `differs` says that they do not agree."""

    rows = Money()
    ledger = Money()
    pending = Money()
    difference = Money()
    differs = serializers.BooleanField()
    counting = serializers.BooleanField()
    folded_at = Moment(allow_null=True)


class ReportOut(serializers.Serializer):  # type: ignore[type-arg]
    first = serializers.DateField()
    last = serializers.DateField()
    goals = GoalOut(many=True)
    total = GoalOut()
    check = CostCheckOut()


class CostMissionOut(serializers.Serializer):  # type: ignore[type-arg]
    mission_id = serializers.UUIDField()
    title = serializers.CharField()
    standing = serializers.ChoiceField(Standing.values)
    decided_on = serializers.DateField(allow_null=True)
    money = Money()
    effort = EffortOut()


class MissionCostOut(serializers.Serializer):  # type: ignore[type-arg]
    """One mission's charges in the span, to the line."""

    mission = CostMissionOut()
    goal = serializers.CharField()
    goal_name = serializers.CharField()
    kinds = serializers.DictField(child=Money())
    lines_total = Money()
    pending = Money()
    differs = serializers.BooleanField()
    lines = LineOut(many=True)
    next = serializers.CharField(allow_null=True)


def span_of(query: Any, *, today: date) -> Span:
    """Raises 422 `costs.span`."""
    last = query.get("last", today)
    first = query.get("first", last - timedelta(days=_DEFAULT_DAYS - 1) if last.year > 1 else last)
    if not 1970 <= first.year <= last.year <= 9000 or first > last or (last - first).days >= LONGEST_DAYS:
        raise invalid(
            "costs.span",
            "Those days can't be summed.",
            FieldError("/first", f"not after the last one, and at most {LONGEST_DAYS} days before it"),
        )
    return Span(first, last)


def goal_of(row: GoalRow, currency: str) -> dict[str, Any]:
    share = row.waste_share
    return {
        "goal": row.goal,
        "name": row.name,
        "missions": row.missions,
        "accepted": row.accepted,
        "money": {standing.value: money(row.money[standing], currency) for standing in Standing},
        "outside": money(row.outside, currency),
        "total": money(row.total, currency),
        "cost_per_accepted_goal": money(row.cost_each, currency),
        "waste_percent": None if share is None else f"{share:.4f}",
        "effort": EffortOut(row.effort).data,
    }


def check_of(check: Check, currency: str) -> dict[str, Any]:
    amounts = {name: money(getattr(check, name), currency) for name in ("rows", "ledger", "pending", "difference")}
    folded = Moment().to_representation(check.folded_at) if check.folded_at else None
    return {**amounts, "differs": check.differs, "counting": check.counting, "folded_at": folded}


def mission_of(row: MissionRow, currency: str) -> dict[str, Any]:
    return {
        "mission_id": str(row.mission_id),
        "title": row.title,
        "standing": row.standing.value,
        "decided_on": row.decided_on.isoformat() if row.decided_on else None,
        "money": money(row.money, currency),
        "effort": EffortOut(row.effort).data,
    }


def detail_of(cost: MissionCost, currency: str) -> dict[str, Any]:
    return {
        "mission": mission_of(cost.row, currency),
        "goal": cost.goal,
        "goal_name": cost.goal_name,
        "kinds": {kind.value: money(amount, currency) for kind, amount in cost.kinds.items()},
        "lines_total": money(cost.lines_total, currency),
        "pending": money(cost.pending, currency),
        "differs": cost.differs,
        "lines": LineOut(cost.lines, many=True).data,
        "next": cost.next,
    }
