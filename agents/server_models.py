"""What belongs to an MCP server beside its tools: its credential, its tests, how its calls went hour by hour."""

from __future__ import annotations

from django.db import models

from agents.choices import CredentialKind, ServerTestState
from controlplane.common.ids import new_id
from controlplane.tenancy.querysets import TenantQuerySet


class ServerCredential(models.Model):
    """What Remit shows a server of itself. The secret is an envelope (common.envelope) and never shown again."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    server = models.OneToOneField("agents.McpServer", on_delete=models.CASCADE, related_name="credential")
    kind = models.CharField(max_length=20, choices=CredentialKind.choices)
    header = models.CharField(max_length=60, blank=True)  # of kind header
    token_url = models.URLField(max_length=400, blank=True)  # of kind client_credentials, like the two below
    client_id = models.CharField(max_length=200, blank=True)
    scope = models.CharField(max_length=400, blank=True)
    ciphertext = models.BinaryField()
    wrapped_key = models.BinaryField()
    key_id = models.CharField(max_length=16, db_index=True)
    set_by = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, related_name="+")
    set_at = models.DateTimeField()


class ServerTest(models.Model):
    """A connection somebody asked for: listing the tools, and where they wished one call of a tool that only reads.

    `steps`: [{"step", "milliseconds", "said", "passed"}] in order. `answer` is the server's own text, untrusted.
    """

    class TestQuerySet(TenantQuerySet["ServerTest"]):
        organisation_path = "server__organisation_id"
        team_path = None

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    server = models.ForeignKey("agents.McpServer", on_delete=models.CASCADE, related_name="tests")
    asked_by = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, related_name="+")
    state = models.CharField(max_length=10, choices=ServerTestState.choices, default=ServerTestState.WAITING)
    steps = models.JSONField(default=list)
    tool = models.ForeignKey("agents.McpTool", on_delete=models.SET_NULL, null=True, related_name="+")
    tool_name = models.CharField(max_length=160, blank=True)
    arguments = models.JSONField(default=dict)
    answer = models.TextField(blank=True)
    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    objects = TestQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["server"], condition=models.Q(state__in=["waiting", "running"]), name="server_test_live_once"
            )
        ]
        indexes = [
            models.Index(
                fields=["created_at"], name="server_test_live", condition=models.Q(state__in=["waiting", "running"])
            )
        ]


class ServerHour(models.Model):
    """One server's calls and checks of one hour. `failed` counts the server's faults, not what its tools refuse."""

    server = models.ForeignKey("agents.McpServer", on_delete=models.CASCADE, db_index=False, related_name="hours")
    hour = models.DateTimeField()
    calls = models.IntegerField(default=0)
    failed_calls = models.IntegerField(default=0)
    call_milliseconds = models.BigIntegerField(default=0)
    checks = models.IntegerField(default=0)
    failed_checks = models.IntegerField(default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["server", "hour"], name="server_hour_once")]
