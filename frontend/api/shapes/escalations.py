"""Questions to people as JSON."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from frontend.api.fields import Body, Choice, Flag, Id, Json, ListQuery, Moment, Text, Whole
from frontend.api.shapes.common import Reference
from governance.choices import ActionState, EscalationState
from governance.services import Result


class VoteOut(serializers.Serializer):  # type: ignore[type-arg]
    user_id = Id()
    name = serializers.CharField(source="user.name")
    for_user_id = Id(allow_null=True, help_text="In whose place, where they stood in for somebody.")
    approve = serializers.BooleanField()
    reason = serializers.CharField(allow_blank=True)
    digest = serializers.CharField(help_text="What this person saw.")
    created_at = Moment()


class EscalationOut(serializers.Serializer):  # type: ignore[type-arg]
    """A question as lists show it."""

    id = Id()
    kind = serializers.CharField()
    title = serializers.CharField()
    state = serializers.ChoiceField(EscalationState.values)
    version = serializers.IntegerField(help_text="Of the votes; the ETag names it.")
    action_id = Id()
    mission_id = Id(allow_null=True)
    agent_id = Id(allow_null=True)
    team_id = Id()
    needed = serializers.IntegerField(help_text="How many have to agree.")
    reason = serializers.CharField(allow_blank=True)
    opened_at = Moment()
    expires_at = Moment()
    closed_at = Moment(allow_null=True)
    claimed_by_id = Id(allow_null=True, help_text="Who is at work on it.")
    claimed_until = Moment(allow_null=True)


class AskedActionOut(serializers.Serializer):  # type: ignore[type-arg]
    """What is asked about: exactly this, and nothing else, happens when it is approved."""

    id = Id()
    kind = serializers.CharField()
    tool = serializers.CharField(allow_blank=True)
    arguments = Json()
    justification = serializers.CharField(allow_blank=True)
    digest = serializers.CharField()
    state = serializers.ChoiceField(ActionState.values)
    proposer_kind = serializers.CharField()
    proposer_id = Id()
    proposer_name = serializers.CharField()


class EscalationDetail(EscalationOut):
    policies = serializers.ListField(child=serializers.CharField(), help_text="The rules that ask.")
    message = serializers.CharField(source="decision.message", allow_blank=True)
    action = AskedActionOut()
    votes = VoteOut(many=True)


class DecideBody(Body):
    answer = Choice(["approve", "deny"])
    reason = Text(max_length=500, required=False, default="", allow_blank=True, help_text="A refusal needs one.")


class ClaimBody(Body):
    take_over = Flag(required=False, default=False, help_text="Also when somebody else is at work on it.")


class MessageBody(Body):
    text = Text(max_length=2000)


class MessageOut(serializers.Serializer):  # type: ignore[type-arg]
    """Something said beside a question."""

    id = Id()
    kind = serializers.CharField()
    author_id = Id()
    author_name = serializers.CharField()
    text = serializers.CharField()
    created_at = Moment()


class EditBody(Body):
    """The whole arguments as they should be."""

    arguments = Json()
    reason = Text(max_length=500, required=False, default="", allow_blank=True)


class EditedOut(serializers.Serializer):  # type: ignore[type-arg]
    """The action in place of the one that waited, and the question about it, where it needs one."""

    action = AskedActionOut()
    escalation_id = Id(allow_null=True)


class BreakGlassBody(Body):
    reason = Text(max_length=500)


class DecideManyItem(Body):
    id = Id()
    version = Whole(min_value=1)


class DecideManyBody(DecideBody):
    """The same answer to questions about the very same action."""

    items = DecideManyItem(many=True)


class DelegationOut(serializers.Serializer):  # type: ignore[type-arg]
    """For a time one person stands in for another. It gives no role."""

    id = Id()
    from_user = Reference()
    to_user = Reference()
    starts_at = Moment()
    ends_at = Moment()
    reason = serializers.CharField(allow_blank=True)


class DelegationBody(Body):
    from_user_id = Id()
    to_user_id = Id()
    starts_at = Moment()
    ends_at = Moment()
    reason = Text(max_length=200, required=False, default="", allow_blank=True)


class EscalationQuery(ListQuery):
    state = serializers.ChoiceField(EscalationState.values, required=False)
    mission = Id(required=False)
    kind = serializers.CharField(required=False, max_length=40, help_text="Of the action: `tool.call`, `budget.topup`…")
    team = Id(required=False)
    group = Id(required=False, help_text="The approver group that is asked.")
    irreversible = serializers.BooleanField(required=False, help_text="Only what can't, or only what can be undone.")
    mine = serializers.BooleanField(
        required=False, default=False, help_text="Only what waits for you. The newest first, as every list here."
    )


class DecidedOut(serializers.Serializer):  # type: ignore[type-arg]
    """What came of one of many answers. `code` and `message` are empty where it was taken."""

    id = Id()
    title = serializers.CharField()
    state = serializers.CharField()
    code = serializers.CharField(allow_blank=True)
    message = serializers.CharField(allow_blank=True)


class DecidedManyOut(serializers.Serializer):  # type: ignore[type-arg]
    items = DecidedOut(many=True)


def result_of(result: Result) -> dict[str, Any]:
    return {
        "id": result.escalation_id,
        "title": result.title,
        "state": result.state,
        "code": result.error.code if result.error else "",
        "message": result.error.message if result.error else "",
    }
