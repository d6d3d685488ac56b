"""Who is asked, and how it went: groups, routes, emergencies, approvers and notices as JSON."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from rest_framework import serializers

from frontend.api.fields import Body, Choice, Flag, Id, Json, Moment, Name, Query, Text, Whole
from frontend.api.shapes.common import Reference
from governance.choices import NoticeKind, ReviewVerdict, Verdict
from governance.escalations.arranging import LONGEST_SECONDS, MOST_NEEDED, SHORTEST_SECONDS
from governance.escalations.differences import Change
from governance.escalations.ways import Way
from governance.services import EditPreview

_AMOUNT = r"^[0-9]{1,12}(\.[0-9]{1,12})?$"


class AmountText(serializers.RegexField):
    """An exact number as text, without a currency: it is compared with whatever a question is about."""

    def __init__(self, **options: Any) -> None:
        super().__init__(_AMOUNT, **options)

    def run_validation(self, data: Any = serializers.empty) -> Any:
        """The form is checked on the text, so the number is made of it only afterwards."""
        text = super().run_validation(data)
        return Decimal(text) if isinstance(text, str) else text

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)

    def to_representation(self, value: Any) -> str:
        return f"{value:.12f}"


class GroupOut(serializers.Serializer):  # type: ignore[type-arg]
    """People who are asked together. Membership alone decides nothing: the approver's role is needed beside it."""

    id = Id()
    name = serializers.CharField()
    team = Reference(allow_null=True)
    members = Reference(many=True)
    created_at = Moment()


class GroupBody(Body):
    name = Name(max_length=80)
    member_ids = serializers.ListField(child=Id(), min_length=1, max_length=200)
    team_id = Id(required=False, allow_null=True, default=None)


class RouteOut(serializers.Serializer):  # type: ignore[type-arg]
    """Where a question goes; the first that fits is taken. What is empty or null fits everything."""

    id = Id()
    position = serializers.IntegerField()
    name = serializers.CharField()
    sentence = serializers.SerializerMethodField(help_text="The whole route in words.")
    kind = serializers.CharField(allow_blank=True)
    team = Reference(allow_null=True)
    amount_above = AmountText(allow_null=True)
    amount_argument = serializers.CharField(allow_blank=True)
    only_irreversible = serializers.BooleanField()
    group = Reference(allow_null=True)
    needed = serializers.IntegerField()
    answer_seconds = serializers.IntegerField(allow_null=True)
    next_group = Reference(allow_null=True)
    next_seconds = serializers.IntegerField(allow_null=True)

    def get_sentence(self, route: Any) -> str:  # noqa: ARG002 - told with the row, by who read it
        return str(self.context["sentence"])


class RouteBody(Body):
    """What is left out fits everything; without a group anybody with the approver's role is asked."""

    name = Name(max_length=80)
    kind = Text(max_length=40, required=False, default="", allow_blank=True)
    team_id = Id(required=False, allow_null=True, default=None)
    amount_above = AmountText(required=False, allow_null=True, default=None)
    amount_argument = Text(max_length=80, required=False, default="", allow_blank=True)
    only_irreversible = Flag(required=False, default=False)
    group_id = Id(required=False, allow_null=True, default=None)
    needed = Whole(min_value=1, max_value=MOST_NEEDED, required=False, default=1)
    answer_seconds = Whole(
        min_value=SHORTEST_SECONDS, max_value=LONGEST_SECONDS, required=False, allow_null=True, default=None
    )
    next_group_id = Id(required=False, allow_null=True, default=None)
    next_seconds = Whole(
        min_value=SHORTEST_SECONDS, max_value=LONGEST_SECONDS, required=False, allow_null=True, default=None
    )


class MoveBody(Body):
    up = Flag(help_text="Else down: it changes places with its neighbour.")


class TryQuery(Query):
    """Facts of a question that nobody asks."""

    kind = serializers.CharField(max_length=40)
    team = Id()
    amount = AmountText(required=False)
    irreversible = serializers.BooleanField(required=False, default=False)


class WayOut(serializers.Serializer):  # type: ignore[type-arg]
    """Whom a question asks, and how long each tier has."""

    route_id = Id(allow_null=True)
    route_name = serializers.CharField(allow_blank=True)
    group_id = Id(allow_null=True)
    next_group_id = Id(allow_null=True)
    needed = serializers.IntegerField()
    answer_seconds = serializers.IntegerField()
    next_seconds = serializers.IntegerField(allow_null=True)


class TriedRouteOut(serializers.Serializer):  # type: ignore[type-arg]
    id = Id()
    name = serializers.CharField()
    why_not = serializers.CharField(allow_blank=True, help_text="Empty: it fits.")


class TriedOut(serializers.Serializer):  # type: ignore[type-arg]
    routes = TriedRouteOut(many=True)
    way = WayOut()


def tried(steps: Any, way: Way) -> Any:
    routes = [{"id": row.pk, "name": row.name, "why_not": why} for row, why in steps]
    return TriedOut({"routes": routes, "way": way}).data


class ChangeOut(serializers.Serializer):  # type: ignore[type-arg]
    """One argument that is edited. Values as JSON texts; null: it was not, or is no longer, there."""

    path = serializers.CharField()
    before = serializers.CharField(allow_null=True)
    after = serializers.CharField(allow_null=True)
    sentence = serializers.SerializerMethodField()

    def get_sentence(self, change: Change) -> str:
        return change.in_words()


class PreviewEditBody(Body):
    arguments = Json(help_text="The whole arguments as they should be.")


class EditPreviewOut(serializers.Serializer):  # type: ignore[type-arg]
    """What the rules would say. Nothing is written; budget, history and judge can still refuse the real thing."""

    allowed = serializers.BooleanField()
    verdict = serializers.ChoiceField(Verdict.values)
    reason_code = serializers.CharField(allow_blank=True)
    message = serializers.CharField(allow_blank=True)
    remedies = serializers.ListField(child=serializers.CharField())
    changes = ChangeOut(many=True)
    way = WayOut()
    judge_is_asked = serializers.BooleanField()


def preview_of(found: EditPreview) -> Any:
    said = found.finding
    facts = {name: getattr(said, name) for name in ("verdict", "reason_code", "message", "remedies")}
    return EditPreviewOut({**vars(found), **facts, "allowed": found.allowed}).data


class BreakGlassOut(serializers.Serializer):  # type: ignore[type-arg]
    """One question passed over in an emergency, and what somebody else later said of it."""

    id = Id()
    escalation_id = Id()
    action_id = Id()
    title = serializers.CharField(source="escalation.title")
    team_id = Id()
    by = Reference()
    reason = serializers.CharField()
    policies = serializers.ListField(child=serializers.CharField(), help_text="The rules that were lifted.")
    at = Moment()
    usable_until = Moment()
    reviewed_by = Reference(allow_null=True)
    reviewed_at = Moment(allow_null=True)
    verdict = serializers.ChoiceField(ReviewVerdict.values, allow_blank=True)
    note = serializers.CharField(allow_blank=True)


class ReviewBody(Body):
    verdict = Choice(ReviewVerdict.values)
    note = Text(max_length=500)


class HealthQuery(Query):
    days = serializers.IntegerField(min_value=1, max_value=365, default=30)


class ApproverOut(serializers.Serializer):  # type: ignore[type-arg]
    """One person's answers. Times in seconds; `hasty`: approvals within ten seconds of the question."""

    user_id = Id()
    name = serializers.CharField()
    answers = serializers.IntegerField()
    approvals = serializers.IntegerField()
    median = serializers.FloatField()
    p90 = serializers.FloatField()
    hasty = serializers.IntegerField()


class GroupHealthOut(serializers.Serializer):  # type: ignore[type-arg]
    """Questions that were settled. Without a group: those that any approver of the team was asked."""

    group_id = Id(allow_null=True)
    name = serializers.CharField(allow_blank=True)
    questions = serializers.IntegerField()
    approved = serializers.IntegerField()
    denied = serializers.IntegerField()
    expired = serializers.IntegerField()
    second_tier = serializers.IntegerField()
    median = serializers.FloatField()
    p90 = serializers.FloatField()


class HealthOut(serializers.Serializer):  # type: ignore[type-arg]
    people = ApproverOut(many=True)
    groups = GroupHealthOut(many=True)


class NoticeOut(serializers.Serializer):  # type: ignore[type-arg]
    """One thing you were told: about a question, or about a mission, budget or stop."""

    id = Id()
    kind = serializers.ChoiceField(NoticeKind.values)
    escalation_id = Id(allow_null=True)
    subject_type = serializers.ChoiceField(["mission", "budget", "stop"], allow_blank=True)
    subject_id = Id(allow_null=True)
    title = serializers.CharField()
    created_at = Moment()
    read_at = Moment(allow_null=True)


class ReadBody(Body):
    """Without ids all of them."""

    ids = serializers.ListField(child=Id(), required=False, max_length=200)


class ReadOut(serializers.Serializer):  # type: ignore[type-arg]
    read = serializers.IntegerField()


def route_out(row: Any, sentence: str) -> Any:
    return RouteOut(row, context={"sentence": sentence}).data
