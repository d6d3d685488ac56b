"""Budgets, holds and the ledger as JSON."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from budgets.types import HoldState, Level, Limits, WindowKind
from frontend.api.fields import Body, Choice, Id, ListQuery, Moment, MoneyIn, MoneyOut, Text, Whole
from frontend.api.shapes.common import AmountsOut, BalanceOut


class BudgetOut(BalanceOut):
    """One budget of the tree."""

    id = Id(source="account_id")
    name = serializers.CharField()
    level = serializers.ChoiceField([level.value for level in Level])
    parent_id = Id(allow_null=True)
    team_id = Id(allow_null=True)
    subject_type = serializers.CharField(allow_blank=True)
    subject_id = Id(allow_null=True)
    burn_per_day = MoneyOut("burn_per_day")
    also = BalanceOut(many=True, help_text="Its other windows, where it has several.")


class LimitsIn(Body):
    """Left out or null: no limit of its own in that unit."""

    money = MoneyIn(required=False, allow_null=True)
    tokens = Whole(min_value=0, max_value=10**15, required=False, allow_null=True)
    steps = Whole(min_value=0, max_value=10**15, required=False, allow_null=True)


class SetLimitBody(Body):
    window = Choice(WindowKind.values)
    limits = LimitsIn()
    reason = Text(max_length=300, required=False, default="", allow_blank=True)


class BudgetQuery(ListQuery):
    level = serializers.ChoiceField([level.value for level in Level], required=False)


class HoldOut(serializers.Serializer):  # type: ignore[type-arg]
    """Money set aside before something is done."""

    id = Id()
    budget_id = Id(source="account_id")
    state = serializers.ChoiceField(HoldState.values)
    held = AmountsOut("held")
    charged = AmountsOut("charged")
    provisional = serializers.BooleanField(help_text="Charged without a report; a late one corrects it.")
    action_id = Id(allow_null=True)
    mission_id = Id(allow_null=True)
    created_at = Moment()
    expires_at = Moment()
    closed_at = Moment(allow_null=True)


class HoldQuery(ListQuery):
    budget = Id(required=False, help_text="Of this budget and all below it.")
    mission = Id(required=False)
    state = serializers.ChoiceField(HoldState.values, required=False)


class LineOut(serializers.Serializer):  # type: ignore[type-arg]
    """One line of the journal."""

    id = serializers.CharField()
    at = Moment()
    kind = serializers.CharField()
    description = serializers.CharField()
    amounts = AmountsOut("amounts")
    hold_id = Id(allow_null=True)
    mission_id = Id(allow_null=True)
    action_id = Id(allow_null=True)


class LineQuery(ListQuery):
    budget = Id(required=False, help_text="Of this budget and all below it.")
    mission = Id(required=False)


def limits_from(data: Any, amount: Any) -> Limits:
    return Limits(amount, data.get("tokens"), data.get("steps"))
