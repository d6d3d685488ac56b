"""Audit entries, servers, tools, templates and sandboxes as JSON."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from agents.catalogue import Template
from agents.choices import Runtime, ServerState, ToolState, Transport
from controlplane.audit import jobs
from controlplane.audit import selectors as audit
from controlplane.audit.models import Entry, Job, JobKind, JobState
from controlplane.clusters.types import SandboxPhase
from frontend.api.fields import Body, Choice, Flag, Id, Json, ListQuery, Moment, Money, Name, Query, Text, money
from frontend.api.shapes.agents import ResourcesIn
from frontend.api.shapes.common import Reference
from frontend.api.shapes.missions import GrantShape


class EntryOut(serializers.Serializer):  # type: ignore[type-arg]
    """One entry of the audit trail. `sequence` and `chain_sha256` are null until it is sealed."""

    id = Id()
    at = Moment()
    event = serializers.CharField()
    sentence = serializers.SerializerMethodField()
    actor_kind = serializers.CharField()
    actor_id = Id()
    actor_name = serializers.CharField()
    subject_type = serializers.CharField()
    subject_id = Id()
    subject_name = serializers.CharField(allow_blank=True)
    team_id = Id(allow_null=True)
    mission_id = Id(allow_null=True)
    payload = Json()
    payload_sha256 = serializers.CharField()
    trace_id = serializers.CharField(allow_blank=True)
    sequence = serializers.SerializerMethodField()
    chain_sha256 = serializers.SerializerMethodField()

    def get_sentence(self, entry: Entry) -> str:
        return audit.sentence(entry)

    def get_sequence(self, entry: Entry) -> int | None:
        return entry.seal.sequence if hasattr(entry, "seal") else None

    def get_chain_sha256(self, entry: Entry) -> str | None:
        return entry.seal.chain_sha256 if hasattr(entry, "seal") else None


class EntryQuery(ListQuery):
    event = serializers.CharField(required=False, default="", allow_blank=True, max_length=40)
    subject_type = serializers.CharField(required=False, default="", allow_blank=True, max_length=40)
    subject = Id(required=False)
    actor = Id(required=False)
    mission = Id(required=False)
    since = Moment(required=False)
    until = Moment(required=False)
    q = serializers.CharField(required=False, default="", allow_blank=True, max_length=100)


class JobOut(serializers.Serializer):  # type: ignore[type-arg]
    """A check or an export of the whole trail. `intact`: what a check found."""

    id = Id()
    kind = serializers.ChoiceField(JobKind.values)
    state = serializers.ChoiceField(JobState.values)
    first = serializers.IntegerField()
    last = serializers.IntegerField()
    done = serializers.IntegerField()
    total = serializers.IntegerField()
    error = serializers.CharField(allow_blank=True)
    intact = serializers.SerializerMethodField(help_text="Of a check that is ready; else null.")
    created_at = Moment()
    ended_at = Moment(allow_null=True)
    expires_at = Moment(allow_null=True, help_text="Until then an export can be downloaded.")

    def get_intact(self, job: Job) -> bool | None:
        if job.kind != JobKind.VERIFY or job.state != JobState.READY:
            return None
        return jobs.report_of(job).intact


class ExportBody(Body):
    """Which part of the trail; without bounds all of it."""

    start = Moment(required=False)
    end = Moment(required=False)


class ServerOut(serializers.Serializer):  # type: ignore[type-arg]
    id = Id()
    name = serializers.CharField()
    slug = serializers.CharField(help_text="The first half of its tools' names.")
    transport = serializers.ChoiceField(Transport.values)
    environment = serializers.CharField(allow_blank=True)
    command = serializers.ListField(child=serializers.CharField())
    url = serializers.CharField(allow_blank=True)
    state = serializers.ChoiceField(ServerState.values)
    error = serializers.CharField(allow_blank=True)
    protocol_version = serializers.CharField(allow_blank=True)
    checked_at = Moment(allow_null=True)
    created_by = Reference()
    created_at = Moment()


class MountIn(Body):
    """A folder of the state folder that its program sees; `{run}` and `{mission}` are filled in."""

    source = Text(max_length=200)  # type: ignore[assignment]
    target = Text(max_length=200)
    writable = Flag(required=False, default=False)


class ServerBody(Body):
    name = Name()
    slug = Text(max_length=40)
    transport = Choice(Transport.values)
    environment = Text(max_length=60, required=False, default="", allow_blank=True)
    command = serializers.ListField(child=Text(max_length=400), required=False, default=list, max_length=40)
    url = Text(max_length=400, required=False, default="", allow_blank=True)
    mounts = MountIn(many=True, required=False, default=list, max_length=20)  # type: ignore[call-arg]


class RefreshedOut(serializers.Serializer):  # type: ignore[type-arg]
    """What asking the server for its tools changed. A server that is not reached is a `fault`, not an error."""

    added = serializers.ListField(child=serializers.CharField())
    quarantined = serializers.ListField(child=serializers.CharField())
    removed = serializers.ListField(child=serializers.CharField())
    fault = serializers.CharField(allow_blank=True)


class ServerQuery(ListQuery):
    state = serializers.ChoiceField(ServerState.values, required=False)


class ToolOut(serializers.Serializer):  # type: ignore[type-arg]
    """One tool of a server. `offered_sha256` is what approving it would put in force."""

    id = Id()
    server_id = Id()
    name = serializers.CharField()
    qualified_name = serializers.CharField(help_text="As agents see it.")
    state = serializers.ChoiceField(ToolState.values)
    definition = Json()
    definition_sha256 = serializers.CharField()
    pending_definition = Json(allow_null=True)
    offered_sha256 = serializers.SerializerMethodField()
    read_only = serializers.BooleanField()  # type: ignore[assignment]
    reversible = serializers.BooleanField()
    effects = serializers.ListField(child=serializers.CharField())
    approved_by_id = Id(allow_null=True)
    approved_at = Moment(allow_null=True)
    changed_at = Moment(allow_null=True)

    def get_offered_sha256(self, tool: Any) -> str:
        return str(tool.pending_sha256 or tool.definition_sha256)


class ToolQuery(ListQuery):
    server = Id(required=False)
    state = serializers.ChoiceField(ToolState.values, required=False)


class ApproveBody(Body):
    sha256 = Text(max_length=71, help_text="Of the definition that was read; another one is not approved.")


class DescribeBody(Body):
    read_only = Flag()  # type: ignore[assignment]
    reversible = Flag()
    effects = serializers.ListField(child=Text(max_length=60), max_length=20)


class TemplateFieldOut(serializers.Serializer):  # type: ignore[type-arg]
    name = serializers.CharField()
    label = serializers.CharField()  # type: ignore[assignment]
    kind = serializers.ChoiceField(["text", "money", "hours", "choice"])
    default = serializers.CharField(allow_blank=True)
    hint = serializers.CharField(allow_blank=True)
    choices = serializers.SerializerMethodField()

    def get_choices(self, field: Any) -> list[str]:
        return [value for value, _ in field.choices]


class TemplateOut(serializers.Serializer):  # type: ignore[type-arg]
    """A way to start a mission from a few fields."""

    code = serializers.CharField()
    name = serializers.CharField()
    sentence = serializers.CharField()
    usual_cost = serializers.CharField()
    runtime = serializers.ChoiceField(Runtime.values)
    goal = serializers.CharField()
    criteria = serializers.ListField(child=serializers.CharField())
    grants = GrantShape(many=True)
    steps = serializers.IntegerField()
    tokens = serializers.IntegerField()
    budget = serializers.SerializerMethodField()
    form = TemplateFieldOut(many=True, source="fields", help_text="What `values` may hold.")
    servers = serializers.SerializerMethodField(help_text="Short names of the servers it needs.")

    @extend_schema_field(Money)
    def get_budget(self, template: Template) -> dict[str, str] | None:
        return money(template.budget, self.context["currency"])

    def get_servers(self, template: Template) -> list[str]:
        return [need.slug for need in template.servers]


class SandboxOut(serializers.Serializer):  # type: ignore[type-arg]
    """One sandbox: what it should be, and what it is."""

    id = Id()
    name = serializers.CharField()
    purpose = serializers.CharField()
    program = serializers.CharField(allow_blank=True)
    cluster = serializers.CharField(source="cluster.name")
    team_id = Id()
    mission_id = Id(allow_null=True)
    owner_id = Id(help_text="The run or server it is for.")
    desired = serializers.ChoiceField(["running", "deleted"])
    desired_resources = Json()
    desired_generation = serializers.IntegerField()
    observed_phase = serializers.ChoiceField([phase.value for phase in SandboxPhase])
    observed_resources = Json(allow_null=True)
    observed_generation = serializers.IntegerField()
    observed_at = Moment(allow_null=True)
    isolation = serializers.CharField(allow_blank=True, help_text="What really separates it.")
    resize_error = serializers.CharField(allow_blank=True)
    exit_code = serializers.IntegerField(allow_null=True)
    exit_reason = serializers.CharField(allow_blank=True)
    message = serializers.CharField(allow_blank=True)
    cpu_seconds = serializers.FloatField()
    peak_memory_bytes = serializers.IntegerField()
    wall_clock_seconds = serializers.IntegerField()
    created_at = Moment()
    started_at = Moment(allow_null=True)
    exited_at = Moment(allow_null=True)


class SandboxQuery(ListQuery):
    mission = Id(required=False)
    phase = serializers.ChoiceField([phase.value for phase in SandboxPhase], required=False)


class LogQuery(Query):
    last_bytes = serializers.IntegerField(min_value=1, max_value=200_000, default=200_000)


class LogOut(serializers.Serializer):  # type: ignore[type-arg]
    text = serializers.CharField(allow_blank=True, trim_whitespace=False)
    total_bytes = serializers.IntegerField()
    capped = serializers.BooleanField(help_text="More was written than is kept or shown.")


class ResizeBody(ResourcesIn):
    """What is left out stays as it is."""
