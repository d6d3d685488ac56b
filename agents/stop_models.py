"""Stops: what was stopped by whom and why, when each proof was seen to hold, and the lifting."""

from __future__ import annotations

from django.db import models
from django.db.models import Q

from agents.choices import WIDE_STOPS, StopScope
from controlplane.common.ids import new_id
from controlplane.tenancy.querysets import TenantQuerySet
from controlplane.tenancy.types import Permission, Principal


class StopQuerySet(TenantQuerySet["Stop"]):
    def visible_to(self, principal: Principal | None) -> StopQuerySet:
        """Those of one's teams, and those of the whole organisation, which concern everyone in it."""
        own = self.restrict(principal, Permission.MISSION_VIEW)
        if principal is None or not principal.is_person or not principal.has_anywhere(Permission.MISSION_VIEW):
            return own
        return own | self.filter(organisation_id=principal.organisation_id, team_id__isnull=True)

    def in_force(self) -> StopQuerySet:
        return self.filter(lifted_at__isnull=True, scope__in=WIDE_STOPS)


class Stop(models.Model):
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    team = models.ForeignKey("tenancy.Team", on_delete=models.PROTECT, null=True, related_name="+")
    scope = models.CharField(max_length=12, choices=StopScope.choices)
    scope_id = models.UUIDField()  # of the run, mission, agent, team or organisation
    name = models.CharField(max_length=200)  # in words: “the team Receivables”
    mission_id = models.UUIDField(null=True)  # of a run or a mission
    reason = models.CharField(max_length=300)  # empty where they gave none
    by = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, related_name="+")
    at = models.DateTimeField()  # when the request came in: every proof counts from here
    counts = models.JSONField(default=dict)  # what the stop found and ended: agents.stops.Found
    proofs = models.JSONField(default=dict)  # rung → when Remit first saw it hold, ISO 8601
    proven_at = models.DateTimeField(null=True)  # when the last of them held
    account_id = models.UUIDField(null=True)
    froze = models.BooleanField(default=False)  # by this stop; a budget frozen before stays frozen when it is lifted
    lifted_by = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, null=True, related_name="+")
    lifted_at = models.DateTimeField(null=True)
    lift_action_id = models.UUIDField(null=True)
    resume = models.BooleanField(default=False)  # whoever lifted it asked to resume what it paused

    objects = StopQuerySet.as_manager()

    class Meta:
        app_label = "agents"
        constraints = [
            models.UniqueConstraint(
                fields=["scope", "scope_id"], condition=Q(lifted_at__isnull=True), name="stop_in_force_once"
            )
        ]
        indexes = [
            models.Index(fields=["organisation", "-id"], name="stop_by_organisation"),
            models.Index(fields=["organisation"], name="stop_not_proven", condition=Q(proven_at__isnull=True)),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def kind_of_scope(self) -> StopScope:
        return StopScope(self.scope)

    @property
    def is_final(self) -> bool:
        """A stopped attempt or mission is over: nothing is left that could be lifted."""
        return self.scope not in WIDE_STOPS

    @property
    def in_force(self) -> bool:
        return self.lifted_at is None and not self.is_final

    @property
    def proven_seconds(self) -> float | None:
        """From the click to the last proof."""
        return (self.proven_at - self.at).total_seconds() if self.proven_at else None

    @property
    def why(self) -> str:
        """For what ended by it. Who stopped it, where they gave no reason."""
        return self.reason or f"Stopped by {self.by.name}"

    @property
    def frozen_for(self) -> str:
        """What the frozen budget says. Another text there means that somebody froze it for another reason since."""
        return f"Stopped with {self.name}{f': {self.reason}' if self.reason else ''}"[:300]
