"""Decisions, audit entries and sandboxes as JSON."""

from __future__ import annotations

from rest_framework import serializers

from controlplane.audit import jobs
from controlplane.audit import selectors as audit
from controlplane.audit.models import Entry, Job, JobKind, JobState
from controlplane.clusters.types import SandboxPhase
from frontend.api.fields import Body, Id, Json, ListQuery, Moment, Query
from frontend.api.shapes.agents import ResourcesIn
from governance.choices import Verdict


class StageOut(serializers.Serializer):  # type: ignore[type-arg]
    """One rung of the proof ladder. `verdict` is null for a stage that was not asked."""

    name = serializers.CharField()
    verdict = serializers.ChoiceField(Verdict.values, allow_null=True)
    saw = serializers.CharField(allow_blank=True)
    said = serializers.CharField(allow_blank=True)
    microseconds = serializers.IntegerField()
    policies = serializers.ListField(child=serializers.CharField())
    reason_code = serializers.CharField(allow_blank=True)
    details = Json(
        required=False,
        help_text="Of a judge: the `model`, the document it was `shown` as the text that was sent, its `answer`.",
    )


class DecisionOut(serializers.Serializer):  # type: ignore[type-arg]
    """One judgement of an action. Judged again after an approval, it has several."""

    id = Id()
    verdict = serializers.ChoiceField(Verdict.values)
    reason_code = serializers.CharField(allow_blank=True)
    message = serializers.CharField(allow_blank=True)
    digest = serializers.CharField()
    stages = StageOut(many=True)
    approved_policies = serializers.ListField(child=serializers.CharField())
    bundle_sha256 = serializers.CharField(allow_blank=True)
    duration_microseconds = serializers.IntegerField()
    created_at = Moment()


class DecisionQuery(Query):
    action = Id()


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
    event = serializers.CharField(
        required=False,
        default="",
        allow_blank=True,
        max_length=40,
        help_text="A code such as `mission.paused`, or `mission.*` for all of its kind.",
    )
    subject_type = serializers.CharField(required=False, default="", allow_blank=True, max_length=40)
    subject = Id(required=False)
    actor = Id(required=False)
    person = Id(required=False, help_text="What they did and what was done to them.")
    agent = Id(required=False, help_text="What it did, in each attempt, and what was done to it.")
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
