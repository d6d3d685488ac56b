"""Budgets, holds and the ledger as JSON."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from budgets.models import LimitChange
from budgets.types import HoldState, Level, Limits, WindowKind
from frontend.api.fields import Body, Choice, Id, ListQuery, Moment, MoneyIn, MoneyOut, Query, Text, Whole
from frontend.api.shapes.common import AmountsOut, BalanceOut, LimitsShape, vector


class BudgetOut(BalanceOut):
    """One budget of the tree."""

    id = Id(source="account_id")
    name = serializers.CharField()
    level = serializers.ChoiceField([level.value for level in Level])
    parent_id = Id(allow_null=True)
    team_id = Id(allow_null=True)
    subject_type = serializers.CharField(allow_blank=True)
    subject_id = Id(allow_null=True)
    burn_per_day = MoneyOut(
        "burn_per_day",
        help_text="The mean of the last seven days, or of all days of a younger budget; its first day counts whole.",
    )
    also = BalanceOut(many=True, help_text="Its other windows, where it has several.")


class LimitsIn(Body):
    """Left out or null: no limit of its own in that unit."""

    money = MoneyIn(required=False, allow_null=True)
    tokens = Whole(min_value=0, max_value=10**15, required=False, allow_null=True)
    steps = Whole(min_value=0, max_value=10**15, required=False, allow_null=True)


class SetLimitBody(Body):
    window = Choice(WindowKind.values)
    limits = LimitsIn()
    reason = Text(max_length=300, help_text="Others read it on the budget and in the trail.")


class ChangedOut(serializers.Serializer):  # type: ignore[type-arg]
    """`waits`: nothing has changed yet, a second person is asked."""

    waits = serializers.BooleanField()
    change_id = Id(allow_null=True)
    replaced_id = Id(allow_null=True, help_text="The change that waited until this one took its place.")
    budget = BudgetOut()


class LimitChangeOut(serializers.Serializer):  # type: ignore[type-arg]
    """A limit that waits for a second person."""

    id = Id()
    budget_id = Id()
    window = serializers.ChoiceField(WindowKind.values)
    limits = LimitsShape()
    reason = serializers.CharField()
    proposer_id = Id()
    proposer_name = serializers.CharField()
    proposed_at = Moment()


class ChangeQuery(Query):
    budget = Id(required=False)


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

    id = serializers.CharField(help_text="A number: lines are counted, they are no resources.")
    at = Moment()
    kind = serializers.CharField(
        help_text="`allocation`: the amounts are the limits that were set, 0 where there is none; what holds now is in "
        "`budgets`."
    )
    description = serializers.CharField()
    amounts = AmountsOut("amounts")
    hold_id = Id(allow_null=True)
    mission_id = Id(allow_null=True)
    action_id = Id(allow_null=True)


class LineQuery(ListQuery):
    budget = Id(required=False, help_text="Of this budget and all below it.")
    mission = Id(required=False)


def change_of(row: LimitChange) -> Any:
    """Of a row with its account and organisation."""
    limits = Limits(row.money, row.tokens, row.steps)
    facts = {
        "id": row.pk,
        "budget_id": row.account_id,
        "window": row.kind,
        "limits": vector(limits, row.account.organisation.currency),
        "reason": row.reason,
        "proposer_id": row.proposer_id,
        "proposer_name": row.proposer_name,
        "proposed_at": row.proposed_at,
    }
    return LimitChangeOut(facts).data


def limits_from(data: Any, amount: Any) -> Limits:
    return Limits(amount, data.get("tokens"), data.get("steps"))
