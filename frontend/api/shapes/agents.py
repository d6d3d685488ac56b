"""Agents and their versions as JSON."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from agents.choices import AgentState, Runtime
from controlplane.clusters.types import Resources
from frontend.api.fields import Body, Choice, Id, ListQuery, Moment, Name, Text, Whole
from frontend.api.shapes.common import Reference

_COMMAND = {"min_length": 1, "max_length": 60}


class AgentOut(serializers.Serializer):  # type: ignore[type-arg]
    id = Id()
    name = serializers.CharField()
    slug = serializers.CharField()
    description = serializers.CharField(allow_blank=True)
    runtime = serializers.ChoiceField(Runtime.values)
    capabilities = serializers.ListField(child=serializers.CharField())
    state = serializers.ChoiceField(AgentState.values)
    team = Reference()
    owner = Reference()
    current_version = serializers.IntegerField()
    budget_id = Id(source="account_id", allow_null=True)
    live_missions = serializers.IntegerField()
    ended_missions = serializers.IntegerField()
    accepted_missions = serializers.IntegerField()
    last_seen_at = Moment(allow_null=True)
    created_at = Moment()


class ResourcesShape(serializers.Serializer):  # type: ignore[type-arg]
    """The size of a sandbox."""

    cpu_millicores = serializers.IntegerField()
    memory_bytes = serializers.IntegerField()
    pids = serializers.IntegerField()
    disk_bytes = serializers.IntegerField()


class ResourcesIn(Body):
    cpu_millicores = Whole(min_value=10, max_value=64_000, required=False)
    memory_bytes = Whole(min_value=16 * 1024**2, max_value=512 * 1024**3, required=False)
    pids = Whole(min_value=1, max_value=100_000, required=False)
    disk_bytes = Whole(min_value=1024**2, max_value=1024**4, required=False)


class AgentVersionOut(serializers.Serializer):  # type: ignore[type-arg]
    """What runs: a shipped program, or a command of one's own."""

    id = Id()
    agent_id = Id()
    number = serializers.IntegerField()
    label = serializers.CharField(allow_blank=True)  # type: ignore[assignment]
    program = serializers.CharField(allow_blank=True)
    command = serializers.ListField(child=serializers.CharField())
    resources = serializers.DictField()
    wall_clock_seconds = serializers.IntegerField()
    created_by = Reference()
    created_at = Moment()


class _Runs(Body):
    """What starting an agent takes."""

    program = Text(max_length=60, required=False, default="", allow_blank=True)
    command = serializers.ListField(child=Text(max_length=400), required=False, default=list, max_length=60)
    resources = ResourcesIn(required=False)
    wall_clock_seconds = Whole(min_value=1, max_value=7 * 24 * 3600, required=False, default=3600)


class AgentBody(_Runs):
    team_id = Id()
    name = Name()
    runtime = Choice(Runtime.values)
    description = Text(max_length=500, required=False, default="", allow_blank=True)
    capabilities = serializers.ListField(child=Text(max_length=80), required=False, default=list, max_length=50)
    version_label = Text(max_length=40, required=False, default="1")


class AgentVersionBody(_Runs):
    agent_id = Id()
    label = Text(max_length=40)  # type: ignore[assignment]


class AgentQuery(ListQuery):
    state = serializers.ChoiceField(AgentState.values, required=False)
    q = serializers.CharField(
        required=False, default="", allow_blank=True, max_length=100, help_text="In name or description."
    )


class AgentVersionQuery(ListQuery):
    agent = Id(required=False)


def resources_from(data: Any) -> Resources:
    return Resources(**(data or {}))
