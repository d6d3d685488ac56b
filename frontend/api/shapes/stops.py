"""Stops and their proofs as JSON."""

from __future__ import annotations

from rest_framework import serializers

from agents.choices import StopScope
from frontend.api.fields import Body, Choice, Flag, Id, Json, Moment, Text
from frontend.api.shapes.common import Reference


class StopOut(serializers.Serializer):  # type: ignore[type-arg]
    """What was stopped, by whom and why. `proven_seconds`: from the request to the last proof."""

    id = Id()
    scope = serializers.ChoiceField(StopScope.values)
    scope_id = Id()
    name = serializers.CharField()
    reason = serializers.CharField(allow_blank=True)
    by = Reference()
    at = Moment()
    in_force = serializers.BooleanField()
    counts = Json(help_text="What it found and ended.")
    proven_at = Moment(allow_null=True)
    proven_seconds = serializers.FloatField(allow_null=True)
    lifted_by = Reference(allow_null=True)
    lifted_at = Moment(allow_null=True)


class ProofOut(serializers.Serializer):  # type: ignore[type-arg]
    """One proof, counted now: `left` of what was `found` still lives. `since`: when none was first seen to."""

    name = serializers.CharField()
    title = serializers.CharField()
    holds = serializers.BooleanField()
    left = serializers.IntegerField()
    found = serializers.IntegerField()
    how = serializers.CharField()
    since = Moment(allow_null=True)
    seconds = serializers.FloatField(allow_null=True)
    note = serializers.CharField(allow_blank=True)


class StopDetail(StopOut):
    """`proofs` is empty once it is lifted."""

    proofs = ProofOut(many=True)


class StopBody(Body):
    scope = Choice(StopScope.values)
    scope_id = Id()
    reason = Text(max_length=300, required=False, default="", allow_blank=True)


class LiftBody(Body):
    resume = Flag(required=False, default=False, help_text="Also resume the missions it paused.")
    reason = Text(max_length=300, required=False, default="", allow_blank=True)
