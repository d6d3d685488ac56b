"""Questions to people as JSON."""

from __future__ import annotations

from rest_framework import serializers

from frontend.api.fields import Body, Choice, Id, Json, ListQuery, Moment, Text
from governance.choices import ActionState, EscalationState


class VoteOut(serializers.Serializer):  # type: ignore[type-arg]
    user_id = Id()
    name = serializers.CharField(source="user.name")
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


class EscalationQuery(ListQuery):
    state = serializers.ChoiceField(EscalationState.values, required=False)
    mission = Id(required=False)
    mine = serializers.BooleanField(
        required=False, default=False, help_text="Only what waits for you. The newest first, as every list here."
    )


class DecideBody(Body):
    answer = Choice(["approve", "deny"])
    reason = Text(max_length=500, required=False, default="", allow_blank=True, help_text="A refusal needs one.")
