"""What was asked, how it was judged, who decided, and what came of it.

Governance knows who acts and what about only as ids: `agent_id`, `mission_id`, `run_id` belong to the pillars above.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Final

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Coalesce

from controlplane.common.ids import new_id
from controlplane.tenancy.querysets import TenantQuerySet
from controlplane.tenancy.types import Principal, PrincipalKind
from governance import approval_models  # noqa: F401 - rows of this app, in a file of their own
from governance.choices import ActionState, BundleState, EscalationState, Verdict


class PolicyBundle(models.Model):
    """A version of the rules: Cedar text, schema and golden cases, named by the hash of all three. One is active per
    organisation (organisation empty: the baseline that every organisation starts with)."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, null=True, related_name="+")
    name = models.CharField(max_length=120)
    sha256 = models.CharField(max_length=71)
    policies = models.TextField()
    schema = models.JSONField()
    golden_cases = models.JSONField(default=list)
    loaded_by_id = models.UUIDField(null=True)  # a second person promotes it
    state = models.CharField(max_length=10, choices=BundleState.choices, default=BundleState.DRAFT)
    created_at = models.DateTimeField(auto_now_add=True)
    activated_at = models.DateTimeField(null=True)

    class BundleQuerySet(TenantQuerySet["PolicyBundle"]):
        team_path = None

        def in_force(self, organisation_id: uuid.UUID) -> PolicyBundle | None:
            """The organisation's own bundle, else the baseline; None when there is neither: everything is refused."""
            rows = self.filter(
                models.Q(organisation_id=organisation_id) | models.Q(organisation__isnull=True),
                state=BundleState.ACTIVE,
            )
            return rows.order_by("organisation_id").first()  # PostgreSQL sorts empty last: an own one comes first

    objects = BundleQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organisation"],
                condition=models.Q(state="active"),
                name="bundle_active_once",
                nulls_distinct=False,
            )
        ]


class ActionQuerySet(TenantQuerySet["Action"]):
    mission_path = "mission_id"
    agent_path = "agent_id"


class Action(models.Model):
    """One thing an agent (or a person through an agentic kind) wants to do. Its arguments are judged and sent."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    team = models.ForeignKey("tenancy.Team", on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=40)
    tool = models.CharField(max_length=160, blank=True)
    arguments = models.JSONField(default=dict)
    envelope = models.JSONField(
        default=dict
    )  # what the digest covers: agent, mission@version, tool@definition, arguments, target
    digest = models.CharField(max_length=71)
    justification = models.TextField(blank=True)
    title = models.CharField(max_length=200)
    proposer_kind = models.CharField(max_length=16)
    proposer_id = models.UUIDField()
    proposer_name = models.CharField(max_length=120)
    agent_id = models.UUIDField(null=True)
    mission_id = models.UUIDField(null=True)
    mission_version = models.IntegerField(null=True)
    run_id = models.UUIDField(null=True)
    subject_type = models.CharField(max_length=40, blank=True)
    subject_id = models.UUIDField(null=True)
    state = models.CharField(max_length=10, choices=ActionState.choices, default=ActionState.PROPOSED)
    verdict = models.CharField(max_length=8, choices=Verdict.choices)
    reason_code = models.CharField(max_length=80, blank=True)
    message = models.CharField(max_length=500, blank=True)
    remedies = ArrayField(models.CharField(max_length=300), default=list)
    idempotency_key = models.CharField(max_length=120, null=True)  # noqa: DJ001, empty is a key of no one
    request_sha256 = models.CharField(max_length=71, blank=True)
    hold_id = models.UUIDField(null=True)
    account_id = models.UUIDField(null=True)  # the account held against, and what its loop guard compares
    signature = models.BinaryField(default=bytes)
    price = models.DecimalField(max_digits=28, decimal_places=12, default=0)
    cost = models.DecimalField(max_digits=28, decimal_places=12, null=True)  # settled; empty until then
    currency = models.CharField(max_length=3, default="USD")
    outcome = models.JSONField(null=True)  # {"outcome", "result_sha256", "summary", "effects", "error"}
    effects = ArrayField(models.CharField(max_length=60), default=list)  # recorded labels the sequence rules read
    trace_id = models.CharField(max_length=32, blank=True)
    # Edited by a person before they approved it: the action that was asked for.
    replaces = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, related_name="replacements", db_index=False
    )
    created_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True)
    executing_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    objects = ActionQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["proposer_id", "idempotency_key"],
                condition=models.Q(idempotency_key__isnull=False),
                name="action_idempotency_once",
            ),
            models.UniqueConstraint(
                fields=["replaces"], condition=models.Q(replaces__isnull=False), name="action_replaced_once"
            ),
        ]
        indexes = [
            models.Index(fields=["mission_id", "-id"], name="action_by_mission"),
            models.Index(fields=["organisation", "-id"], name="action_by_organisation"),
            # Sign-offs, requests for money and the like are rare among calls of tools.
            models.Index(
                fields=["organisation", "-id"], name="action_not_a_call", condition=~models.Q(kind="tool.call")
            ),
            models.Index(fields=["agent_id", "-id"], name="action_by_agent"),
            models.Index(fields=["run_id", "-id"], name="action_by_run"),
            models.Index(fields=["executing_at"], name="action_executing", condition=models.Q(state="executing")),
            models.Index(fields=["decided_at"], name="action_permitted", condition=models.Q(state="permitted")),
        ]

    @property
    def by_agent(self) -> bool:
        """Not by a person: what people ask for about an agent's mission names the agent too."""
        return self.proposer_kind in (PrincipalKind.AGENT, PrincipalKind.RUN)

    def was_asked_for_by(self, principal: Principal) -> bool:
        """By this very principal, or in the attempt it acts for: the token of a run and its agent's own credential are
        one agent there."""
        same_attempt = self.by_agent and self.run_id is not None and self.run_id == principal.run_id
        return self.proposer_id == principal.id or same_attempt

    @property
    def ended_unperformed(self) -> bool:
        """Taken back, or out of time, before it was carried out: its verdict is not what counts any more."""
        return self.state in (ActionState.EXPIRED, ActionState.WITHDRAWN) and self.executing_at is None

    @property
    def approved_unused(self) -> bool:
        """People agreed, and it ended without being carried out. For rows that come with their escalations."""
        return self.ended_unperformed and any(row.state == EscalationState.APPROVED for row in self.escalations.all())


class Decision(models.Model):
    """One judgement of one action, immutable (trigger). Judged again after an approval, it has several."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    action = models.ForeignKey(Action, on_delete=models.PROTECT, related_name="decisions")
    verdict = models.CharField(max_length=8, choices=Verdict.choices)
    reason_code = models.CharField(max_length=80, blank=True)
    message = models.CharField(max_length=500, blank=True)
    digest = models.CharField(max_length=71)
    stages = models.JSONField()  # list of governance.types.Stage as dicts, in order
    approved_policies = ArrayField(models.CharField(max_length=120), default=list)
    judged_policies = ArrayField(models.CharField(max_length=120), default=list, db_default=[])
    bundle_sha256 = models.CharField(max_length=71, blank=True)
    duration_microseconds = models.IntegerField()
    created_at = models.DateTimeField()


class Permit(models.Model):
    """Leave to do exactly one thing once. Consumed by a conditional UPDATE; the token is signed and never stored."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    action = models.ForeignKey(Action, on_delete=models.PROTECT, related_name="permits")
    decision = models.ForeignKey(Decision, on_delete=models.PROTECT, related_name="+")
    digest = models.CharField(max_length=71)
    audience = models.CharField(max_length=40)  # who may enforce it: "mcp", "api", "remit"
    holder_id = models.UUIDField()  # the principal it was given to
    nonce_sha256 = models.CharField(max_length=64)
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    consumed_at = models.DateTimeField(null=True)
    voided_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["action"],
                condition=models.Q(consumed_at__isnull=True, voided_at__isnull=True),
                name="permit_live_once",
            ),
            models.CheckConstraint(
                condition=models.Q(consumed_at__isnull=True) | models.Q(voided_at__isnull=True), name="permit_one_end"
            ),
        ]


# When who is asked now has to answer; of what is due at about the same time, what can't be undone comes first.
DUE_AT: Final = Coalesce("tier_ends_at", "expires_at")
DUE_BUCKET: Final = models.Func(
    models.Value(timedelta(minutes=10)),
    DUE_AT,
    models.Value(datetime(2000, 1, 1, tzinfo=UTC)),
    function="date_bin",
    output_field=models.DateTimeField(),
)


class EscalationQuerySet(TenantQuerySet["Escalation"]):
    mission_path = "mission_id"
    agent_path = "agent_id"


class Escalation(models.Model):
    """A question to people. `version` is the ETag of votes: a vote needs the current one."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    team = models.ForeignKey("tenancy.Team", on_delete=models.PROTECT, related_name="+")
    action = models.ForeignKey(Action, on_delete=models.PROTECT, related_name="escalations")
    decision = models.ForeignKey(Decision, on_delete=models.PROTECT, related_name="+")
    kind = models.CharField(max_length=40)
    title = models.CharField(max_length=200)
    mission_id = models.UUIDField(null=True)
    agent_id = models.UUIDField(null=True)
    policies = ArrayField(models.CharField(max_length=120), default=list)  # the escalating policies an approval lifts
    excluded_user_ids = ArrayField(models.UUIDField(), default=list)  # four eyes: requester, mission owner
    needed = models.IntegerField(default=1)
    amount = models.DecimalField(max_digits=28, decimal_places=12, null=True)  # what is at stake, where that is known
    irreversible = models.BooleanField(default=False, db_default=False)
    route_id = models.UUIDField(null=True)  # which route it took, and what that was called then
    route_name = models.CharField(max_length=80, blank=True, default="", db_default="")
    group = models.ForeignKey("governance.ApproverGroup", on_delete=models.PROTECT, null=True, related_name="+")
    next_group = models.ForeignKey("governance.ApproverGroup", on_delete=models.PROTECT, null=True, related_name="+")
    tier = models.IntegerField(default=1, db_default=1)
    tier_ends_at = models.DateTimeField(null=True)  # then the next tier is asked as well; empty: there is none
    told_tier = models.IntegerField(default=0, db_default=0)  # the tier whose people have been told
    claimed_by = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, null=True, related_name="+")
    claimed_until = models.DateTimeField(null=True)
    state = models.CharField(max_length=10, choices=EscalationState.choices, default=EscalationState.OPEN)
    version = models.IntegerField(default=1)
    opened_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)
    reason = models.CharField(max_length=500, blank=True)

    objects = EscalationQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["action"], condition=models.Q(state="open"), name="escalation_open_once")
        ]
        indexes = [
            models.Index(
                fields=["organisation", "expires_at"], name="escalation_open", condition=models.Q(state="open")
            ),
            # The inbox in its order (`escalations.reading.inbox`): a page reads as many as it shows.
            models.Index(
                "organisation",
                DUE_BUCKET,
                models.F("irreversible").desc(),
                DUE_AT,
                "id",
                name="escalation_inbox",
                condition=models.Q(state="open"),
            ),
            models.Index(fields=["mission_id"], name="escalation_by_mission"),
            models.Index(fields=["tier_ends_at"], name="escalation_tier", condition=models.Q(state="open", tier=1)),
            models.Index(
                fields=["id"],
                name="escalation_untold",
                condition=models.Q(state="open", told_tier__lt=models.F("tier")),
            ),
            models.Index(
                fields=["organisation", "-closed_at", "-id"],
                name="escalation_decided",
                condition=~models.Q(state="open"),
            ),
            models.Index(
                fields=["mission_id", "opened_at"], name="escalation_open_by_mission", condition=models.Q(state="open")
            ),
        ]


class Vote(models.Model):
    """One person's answer. Never changed, never deleted."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    escalation = models.ForeignKey(Escalation, on_delete=models.PROTECT, related_name="votes")
    user = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, related_name="+")
    approve = models.BooleanField()
    reason = models.CharField(max_length=500, blank=True)
    digest = models.CharField(max_length=71)  # what this person saw
    for_user = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, null=True, related_name="+")  # as delegate
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["escalation", "user"], name="vote_once")]
