"""Desired and observed state of sandboxes. PostgreSQL holds what should be; a driver reports what is."""

from __future__ import annotations

from django.db import models

from controlplane.clusters.types import SandboxPhase
from controlplane.common.ids import new_id
from controlplane.tenancy.querysets import TenantQuerySet


class ClusterDriverKind(models.TextChoices):
    LOCAL = "local", "This machine"


class Cluster(models.Model):
    """Somewhere sandboxes can run. `epoch` is the fence: work done under an older one is not applied."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    name = models.SlugField(max_length=60, unique=True)
    driver = models.CharField(max_length=16, choices=ClusterDriverKind.choices)
    node_epoch = models.CharField(max_length=64, blank=True)  # changes when the node forgot its sandboxes
    info = models.JSONField(default=dict)
    seen_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=300, blank=True)
    lease_owner = models.CharField(max_length=80, blank=True)
    lease_until = models.DateTimeField(null=True)
    lease_epoch = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return self.name


class Sandbox(models.Model):
    """One sandbox. What exactly it starts, secrets included, is made anew by its owner when it is applied."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    team = models.ForeignKey("tenancy.Team", on_delete=models.PROTECT, related_name="+")
    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="sandboxes")
    purpose = models.CharField(max_length=40)  # "run" or "mcp-server": who answers for it, see services.register_owner
    owner_id = models.UUIDField()
    mission_id = models.UUIDField(null=True)
    name = models.CharField(max_length=120)
    program = models.CharField(max_length=160)
    wall_clock_seconds = models.IntegerField()
    desired = models.CharField(
        max_length=16, choices=[("running", "Running"), ("deleted", "Deleted")], default="running"
    )
    desired_resources = models.JSONField(default=dict)
    desired_generation = models.IntegerField(default=1)
    observed_phase = models.CharField(
        max_length=16,
        choices=[(phase.value, phase.value) for phase in SandboxPhase],
        default=SandboxPhase.PENDING.value,
    )
    observed_resources = models.JSONField(null=True)
    # The sizes it had before `observed_resources`, oldest first: {"until": ISO 8601, "resources": …}.
    former_sizes = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))
    observed_generation = models.IntegerField(default=0)
    observed_at = models.DateTimeField(null=True)
    isolation = models.CharField(max_length=16, blank=True)
    resize_error = models.CharField(max_length=300, blank=True)
    exit_code = models.IntegerField(null=True)
    exit_reason = models.CharField(max_length=20, blank=True)
    message = models.CharField(max_length=500, blank=True)
    cpu_seconds = models.FloatField(default=0)
    peak_memory_bytes = models.BigIntegerField(default=0)
    started_at = models.DateTimeField(null=True)
    exited_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    # The epoch of the node when its start was first asked for.
    applied_under = models.CharField(max_length=64, blank=True, default="", db_default="")
    # Coalescing work list: dirty rows are reconciled by whoever holds the cluster's lease.
    dirty = models.BooleanField(default=True)
    attempts = models.IntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True)

    class SandboxQuerySet(TenantQuerySet["Sandbox"]):
        mission_path = "mission_id"

    objects = SandboxQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["purpose", "owner_id"], name="sandbox_owner_once")]
        indexes = [
            models.Index(fields=["cluster", "next_attempt_at"], name="sandbox_dirty", condition=models.Q(dirty=True))
        ]


class SandboxLog(models.Model):
    """Output kept after the sandbox is gone, in pieces, with a cap per sandbox."""

    id = models.BigAutoField(primary_key=True)
    sandbox = models.ForeignKey(Sandbox, on_delete=models.CASCADE, related_name="log_chunks")
    offset = models.BigIntegerField()
    data = models.BinaryField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["sandbox", "offset"], name="sandbox_log_once")]
