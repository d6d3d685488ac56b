"""The append-only tables: entries, written in the transaction they tell about, seals, which chain them later, signed
checkpoints of the chain and what erasures replaced; and the long jobs that check or export the chain."""

from __future__ import annotations

from django.db import models

from controlplane.common.ids import new_id
from controlplane.tenancy.querysets import TenantQuerySet


class Entry(models.Model):
    """Who did what to which object. The database refuses UPDATE, DELETE and TRUNCATE (triggers, migration 0003).

    The one exception is the erasure of a person (migration 0004): names, payload and salt may be replaced then, and a
    `Restatement` says by what.
    """

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
    # Random, under the commitment to names and payload: once it is replaced, nobody can find out by guessing what they
    # were. Entries without one are from before and are linked in the first form (`chain.link`).
    salt = models.UUIDField(null=True)
    # Only after an erasure: the commitment to what stood here, or empty when there was none to keep.
    commitment = models.CharField(max_length=71, null=True)  # noqa: DJ001 - none and empty differ

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


class SigningKey(models.Model):
    """The public half of a key that signs checkpoints and exports. Old ones stay: what they signed stays checkable."""

    id = models.CharField(primary_key=True, max_length=16)  # first half of the public key's SHA-256, in hex
    public_key = models.CharField(max_length=64)
    created_at = models.DateTimeField()
    endorsed_by = models.CharField(max_length=16, blank=True)  # the key before it, which signed this one; else empty
    endorsement = models.CharField(max_length=128, blank=True)
    acceptance = models.CharField(max_length=128)  # its own signature under the same words: it names its predecessor


class Checkpoint(models.Model):
    """A signed head of an organisation's chain. Append-only; each covers the one before it."""

    id = models.BigAutoField(primary_key=True)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    number = models.BigIntegerField()
    sequence = models.BigIntegerField()
    chain_sha256 = models.CharField(max_length=71)
    at = models.DateTimeField()
    previous_sha256 = models.CharField(max_length=71)
    key_id = models.CharField(max_length=16)
    signature = models.CharField(max_length=128)

    class CheckpointQuerySet(TenantQuerySet["Checkpoint"]):
        team_path = None

    objects = CheckpointQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organisation", "number"], name="checkpoint_number_once")]


class Restatement(models.Model):
    """What an erasure made of one entry, as a hash; the erasure's own entry covers all of them. Append-only."""

    id = models.BigAutoField(primary_key=True)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    erasure_id = models.UUIDField()  # the entry `person.erased`, written at the end of the same transaction
    entry_id = models.UUIDField(db_index=True)
    sequence = models.BigIntegerField()
    restated_sha256 = models.CharField(max_length=71)

    objects = TenantQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["erasure_id", "entry_id"], name="restated_once_by_an_erasure")]


class JobKind(models.TextChoices):
    VERIFY = "verify", "Verification"
    EXPORT = "export", "Export"


class JobState(models.TextChoices):
    RUNNING = "running", "Running"
    READY = "ready", "Ready"
    FAILED = "failed", "Failed"
    EXPIRED = "expired", "Expired"


class Job(models.Model):
    """A check or export of a whole chain, done in slices. `position` is the last sequence number that is done."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=8, choices=JobKind.choices)
    state = models.CharField(max_length=8, choices=JobState.choices, default=JobState.RUNNING)
    asked_by_id = models.UUIDField()
    first = models.BigIntegerField(default=1)
    last = models.BigIntegerField()
    position = models.BigIntegerField(default=0)
    progress = models.JSONField(default=dict)  # what the next slice needs; afterwards the result
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    lease_until = models.DateTimeField(null=True)  # whoever works on it renews this; past: it may be taken over
    error = models.CharField(max_length=300, blank=True)

    class JobQuerySet(TenantQuerySet["Job"]):
        team_path = None

    objects = JobQuerySet.as_manager()

    class Meta:
        indexes = [
            models.Index(fields=["organisation", "-id"], name="audit_jobs_of_organisation"),
            models.Index(fields=["lease_until"], name="audit_jobs_running", condition=models.Q(state="running")),
        ]

    @property
    def done(self) -> int:
        """How many entries are done, of `total`."""
        return max(0, self.position - self.first + 1)

    @property
    def total(self) -> int:
        return max(0, self.last - self.first + 1)


class Unsealed(models.Model):
    """Work list of the sealer: the insert trigger of `Entry` adds a row, the transaction that seals removes it."""

    pk = models.CompositePrimaryKey("organisation_id", "entry_id")
    organisation_id = models.UUIDField()
    entry_id = models.UUIDField()
