"""Shapes that several resources share: references, amounts, the gate's answer."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from budgets.types import Amounts, Limits
from frontend.api.fields import Body, Id, Moment, Money, Text, money


class Reference(serializers.Serializer):  # type: ignore[type-arg]
    """Something else by its id, with its name as it is now."""

    id = Id()
    name = serializers.CharField()


class AmountsShape(serializers.Serializer):  # type: ignore[type-arg]
    money = Money()
    tokens = serializers.IntegerField()
    steps = serializers.IntegerField()


class LimitsShape(serializers.Serializer):  # type: ignore[type-arg]
    """null: no limit of its own in that unit."""

    money = Money(allow_null=True)
    tokens = serializers.IntegerField(allow_null=True)
    steps = serializers.IntegerField(allow_null=True)


@extend_schema_field(AmountsShape)
class AmountsOut(serializers.Field):  # type: ignore[type-arg]
    """An `Amounts` of an object that has a `currency`."""

    def __init__(self, attribute: str) -> None:
        self._attribute = attribute
        super().__init__(source="*", read_only=True)

    def to_representation(self, value: Any) -> dict[str, Any]:
        return vector(getattr(value, self._attribute), value.currency)


@extend_schema_field(LimitsShape)
class LimitsOut(AmountsOut):
    """A `Limits` of an object that has a `currency`."""


def vector(value: Amounts | Limits, currency: str) -> dict[str, Any]:
    return {"money": money(value.money, currency), "tokens": value.tokens, "steps": value.steps}


class BalanceOut(serializers.Serializer):  # type: ignore[type-arg]
    """A budget in its window that stands for it: the longest one that limits anything."""

    window = serializers.ChoiceField(["total", "day", "week", "month"])
    limits = LimitsOut("limits")
    held = AmountsOut("held")
    spent = AmountsOut("spent")
    overrun = AmountsOut("overrun")
    left = LimitsOut("left")
    frozen = serializers.BooleanField()
    starts_at = Moment(allow_null=True)
    ends_at = Moment(allow_null=True)


class EscalationReference(serializers.Serializer):  # type: ignore[type-arg]
    id = Id()
    expires_at = Moment()


class JudgementOut(serializers.Serializer):  # type: ignore[type-arg]
    """What the gate said to what was asked for. `escalate` waits for a person."""

    action_id = Id()
    verdict = serializers.ChoiceField(["allow", "escalate", "deny"])
    state = serializers.CharField()
    reason_code = serializers.CharField(allow_blank=True)
    message = serializers.CharField(allow_blank=True)
    remedies = serializers.ListField(child=serializers.CharField())
    escalation = EscalationReference(allow_null=True)


class ReasonBody(Body):
    reason = Text(max_length=300, required=False, default="", allow_blank=True)


class GivenReasonBody(Body):
    reason = Text(max_length=300, help_text="Whoever it concerns reads this.")
