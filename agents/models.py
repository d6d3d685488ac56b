"""Agents, their missions and runs, and the MCP servers whose tools they may use."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models

from agents.choices import (
    AgentState,
    CheckState,
    Importance,
    MissionState,
    Outcome,
    RunState,
    Runtime,
    ServerState,
    ToolState,
    Transport,
    VersionState,
)
from agents.saved_views import SavedView
from agents.server_models import ServerCredential, ServerHour, ServerTest
from agents.stop_models import Stop
from controlplane.common.ids import new_id
from controlplane.tenancy.querysets import TeamListQuerySet, TenantQuerySet

__all__ = [
    "Agent",
    "AgentVersion",
    "ChecklistItem",
    "McpServer",
    "McpTool",
    "Mission",
    "MissionVersion",
    "Run",
    "SavedView",
    "ServerCredential",
    "ServerHour",
    "ServerTest",
    "Stop",
]


class AgentQuerySet(TenantQuerySet["Agent"]):
    agent_path = "id"


class Agent(models.Model):
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    team = models.ForeignKey("tenancy.Team", on_delete=models.PROTECT, related_name="+")
    owner = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, related_name="+")
    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=60)
    description = models.CharField(max_length=500, blank=True)
    runtime = models.CharField(max_length=10, choices=Runtime.choices)
    capabilities = ArrayField(models.CharField(max_length=80), default=list, blank=True)
    state = models.CharField(max_length=10, choices=AgentState.choices, default=AgentState.ACTIVE)
    current_version = models.IntegerField(default=1)
    account_id = models.UUIDField(null=True)  # budget account
    last_seen_at = models.DateTimeField(null=True)  # heartbeat: any authenticated call
    created_at = models.DateTimeField(auto_now_add=True)

    objects = AgentQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organisation", "slug"], name="agent_slug_once")]

    def __str__(self) -> str:
        return self.name


class AgentVersion(models.Model):
    """What runs. `program` names a shipped program ("receivables") or is empty with a `command` of one's own."""

    class VersionQuerySet(TenantQuerySet["AgentVersion"]):
        organisation_path = "agent__organisation_id"
        team_path = "agent__team_id"
        agent_path = "agent_id"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    agent = models.ForeignKey(Agent, on_delete=models.CASCADE, related_name="versions")
    number = models.IntegerField()
    label = models.CharField(max_length=40)
    program = models.CharField(max_length=60, blank=True)
    command = ArrayField(models.CharField(max_length=400), default=list, blank=True)
    resources = models.JSONField(default=dict)  # clusters.types.Resources as dict
    wall_clock_seconds = models.IntegerField(default=3600)
    created_by = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = VersionQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["agent", "number"], name="agent_version_once")]


class MissionQuerySet(TenantQuerySet["Mission"]):
    mission_path = "id"
    agent_path = "agent_id"


class Mission(models.Model):
    """An agent's remit and how far it has come. What it may do is in the version in force (`version`)."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    team = models.ForeignKey("tenancy.Team", on_delete=models.PROTECT, related_name="+")
    agent = models.ForeignKey(Agent, on_delete=models.PROTECT, related_name="missions")
    owner = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, related_name="+")
    template = models.CharField(max_length=60, blank=True)
    title = models.CharField(max_length=160)
    state = models.CharField(max_length=20, choices=MissionState.choices, default=MissionState.DRAFT)
    state_reason = models.CharField(max_length=300, blank=True)
    outcome = models.CharField(max_length=10, choices=Outcome.choices, default=Outcome.NONE)
    claim = models.JSONField(null=True)  # the agent's outcome claim: {"summary", "evidence", "at"}
    version = models.IntegerField(default=1)  # the version in force
    account_id = models.UUIDField(null=True)  # budget account of this mission
    settings = models.JSONField(default=dict)  # the template's own fields, as filled in
    created_by = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    deadline = models.DateTimeField(null=True)  # of the version in force, repeated for sweeps
    # The stop that paused it, until it is resumed or ends.
    paused_by = models.ForeignKey(Stop, on_delete=models.SET_NULL, null=True, related_name="paused_missions")

    objects = MissionQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["organisation", "-id"], name="mission_by_organisation"),
            models.Index(fields=["deadline"], name="mission_live", condition=models.Q(state__in=["active", "paused"])),
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def program_ended(self) -> bool:
        """It is still open, though nothing of it runs any more. Reads `runs`: prefetch them."""
        last = max(self.runs.all(), key=lambda run: run.attempt, default=None)
        return self.state == MissionState.ACTIVE and last is not None and last.ended_at is not None


class MissionVersion(models.Model):
    """One wording of a remit, never changed once in force. `grants`: agents.grants.Grant as dicts."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    mission = models.ForeignKey(Mission, on_delete=models.CASCADE, related_name="versions")
    number = models.IntegerField()
    state = models.CharField(max_length=20, choices=VersionState.choices, default=VersionState.DRAFT)
    goal = models.TextField()
    criteria = ArrayField(models.CharField(max_length=300), default=list)
    grants = models.JSONField(default=list)
    budget_money = models.DecimalField(max_digits=28, decimal_places=12)
    budget_tokens = models.BigIntegerField(null=True)
    budget_steps = models.BigIntegerField(null=True)
    currency = models.CharField(max_length=3, default="USD")
    deadline = models.DateTimeField()
    importance = models.CharField(max_length=10, choices=Importance.choices, default=Importance.NORMAL)
    residency = models.CharField(max_length=40, blank=True)
    widens = models.BooleanField(default=False)
    change_note = models.CharField(max_length=300, blank=True)
    created_by = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    signed_off_by = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, null=True, related_name="+")
    signed_off_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["mission", "number"], name="mission_version_once")]


class ChecklistItem(models.Model):
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    mission = models.ForeignKey(Mission, on_delete=models.CASCADE, related_name="checklist")
    position = models.IntegerField()
    text = models.CharField(max_length=300)
    state = models.CharField(max_length=10, choices=CheckState.choices, default=CheckState.OPEN)
    evidence = models.TextField(blank=True)
    note = models.CharField(max_length=500, blank=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["mission", "position"], name="checklist_position_once")]


class Run(models.Model):
    """One attempt at a mission. Managed: a sandbox; external: a token that some client elsewhere uses."""

    class RunQuerySet(TenantQuerySet["Run"]):
        organisation_path = "mission__organisation_id"
        team_path = "mission__team_id"
        mission_path = "mission_id"
        agent_path = "mission__agent_id"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    mission = models.ForeignKey(Mission, on_delete=models.CASCADE, related_name="runs")
    attempt = models.IntegerField()
    agent_version = models.ForeignKey(AgentVersion, on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=10, choices=RunState.choices, default=RunState.PENDING)
    desired = models.CharField(
        max_length=8, choices=[("running", "Running"), ("stopped", "Stopped")], default="running"
    )
    sandbox = models.OneToOneField("clusters.Sandbox", on_delete=models.SET_NULL, null=True, related_name="+")
    hold_id = models.UUIDField(null=True)  # the hold for its sandbox seconds
    reason = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    first_call_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    objects = RunQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["mission", "attempt"], name="run_attempt_once"),
            models.UniqueConstraint(
                fields=["mission"],
                condition=models.Q(state__in=["pending", "starting", "running"]),
                name="run_live_once",
            ),
        ]


class McpServer(models.Model):
    """An upstream MCP server of one organisation. `slug` is the first half of its tools' names."""

    class ServerQuerySet(TeamListQuerySet["McpServer"]):
        teams_path = "team_ids"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=40)
    transport = models.CharField(max_length=8, choices=Transport.choices)
    environment = models.CharField(max_length=60, blank=True)  # stdio: agents.servers.environments
    command = ArrayField(models.CharField(max_length=400), default=list, blank=True)
    mounts = models.JSONField(
        default=list
    )  # stdio: [{"source", "target", "writable"}], `{run}` and `{mission}` are filled in
    url = models.URLField(max_length=400, blank=True)
    # The teams whose missions may use it and whose members see it; empty (NULL): every team of the organisation.
    team_ids = ArrayField(models.UUIDField(), null=True, blank=True)
    state = models.CharField(max_length=12, choices=ServerState.choices, default=ServerState.NEW)
    error = models.CharField(max_length=300, blank=True)
    protocol_version = models.CharField(max_length=20, blank=True)
    checked_at = models.DateTimeField(null=True)
    latency_milliseconds = models.IntegerField(null=True)  # connecting, introducing and listing, of the last check
    failures = models.IntegerField(default=0, db_default=0)  # checks in a row that did not reach it
    next_check_at = models.DateTimeField(null=True)  # empty: never checked by itself
    created_by = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ServerQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organisation", "slug"], name="server_slug_once")]
        indexes = [
            models.Index(
                fields=["next_check_at"], name="server_check_due", condition=models.Q(next_check_at__isnull=False)
            )
        ]

    def __str__(self) -> str:
        return self.name


class McpTool(models.Model):
    """One tool as its server defines it. Agents see it as `<server>__<tool>`; only an approved definition can be
    called."""

    class ToolQuerySet(TeamListQuerySet["McpTool"]):
        organisation_path = "server__organisation_id"
        teams_path = "server__team_ids"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    server = models.ForeignKey(McpServer, on_delete=models.CASCADE, related_name="tools")
    name = models.CharField(max_length=120)
    qualified_name = models.CharField(max_length=160)
    definition = models.JSONField()  # name, description, inputSchema, outputSchema, annotations as the server sent them
    definition_sha256 = models.CharField(max_length=71)
    pending_definition = models.JSONField(null=True)  # what a changed server offers now
    pending_sha256 = models.CharField(max_length=71, blank=True)
    state = models.CharField(max_length=12, choices=ToolState.choices, default=ToolState.ACTIVE)
    read_only = models.BooleanField(default=False)  # set by people, never taken from the server's own annotations
    reversible = models.BooleanField(default=False)
    effects = ArrayField(models.CharField(max_length=60), default=list, blank=True)
    approved_by = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, null=True, related_name="+")
    approved_at = models.DateTimeField(null=True)
    changed_at = models.DateTimeField(null=True)

    objects = ToolQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["server", "name"], name="tool_name_once")]
        indexes = [models.Index(fields=["qualified_name"], name="tool_by_qualified_name")]
