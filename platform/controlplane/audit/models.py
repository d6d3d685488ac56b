"""The append-only tables: entries, written in the transaction they tell about, and seals, which chain them later."""

from __future__ import annotations

from django.db import models

from controlplane.common.ids import new_id
from controlplane.tenancy.querysets import TenantQuerySet


class Entry(models.Model):
    """Who did what to which object. The database refuses UPDATE, DELETE and TRUNCATE (triggers, migration 0003)."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    team_id = models.UUIDField(null=True)
    at = models.DateTimeField()
    event = models.CharField(
        max_length=40
    )  # a code of `events.Event`; no choices, or each new one would be a migration
    actor_kind = models.CharField(max_length=16)
    actor_id = models.UUIDField()
    actor_name = models.CharField(max_length=120)
    subject_type = models.CharField(max_length=40)
    subject_id = models.UUIDField()
    subject_name = models.CharField(max_length=200)
    mission_id = models.UUIDField(null=True)
    payload = models.JSONField(default=dict)
    payload_sha256 = models.CharField(max_length=71)  # "sha256:<hex>" of the RFC 8785 payload
    trace_id = models.CharField(max_length=32, blank=True)

    objects = TenantQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["organisation", "-id"], name="audit_by_organisation"),
            models.Index(fields=["subject_id", "-id"], name="audit_by_subject"),
            models.Index(
                fields=["mission_id", "-id"], name="audit_by_mission", condition=models.Q(mission_id__isnull=False)
            ),
        ]


class Seal(models.Model):
    """One entry's place in its organisation's hash chain. As append-only as the entries."""

    id = models.BigAutoField(primary_key=True)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    sequence = models.BigIntegerField()
    entry = models.OneToOneField(Entry, on_delete=models.PROTECT, related_name="seal")
    chain_sha256 = models.CharField(max_length=71)
    sealed_at = models.DateTimeField(auto_now_add=True)

    class SealQuerySet(TenantQuerySet["Seal"]):
        team_path = "entry__team_id"
        mission_path = "entry__mission_id"

    objects = SealQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organisation", "sequence"], name="seal_sequence_once")]


class Unsealed(models.Model):
    """Work list of the sealer: the insert trigger of `Entry` adds a row, the transaction that seals removes it."""

    pk = models.CompositePrimaryKey("organisation_id", "entry_id")
    organisation_id = models.UUIDField()
    entry_id = models.UUIDField()
