"""The tables of costs. All of it can be made anew from the journal and the missions, and is, by `manage.py costs`."""

from __future__ import annotations

from decimal import Decimal

from django.db import models

from budgets.types import ChargeKind, Standing
from controlplane.tenancy.querysets import TenantQuerySet


class CostMission(models.Model):
    """What costs need to know of a mission, as the pillar that owns missions tells it. `goal`: template, else agent."""

    id = models.UUIDField(primary_key=True, editable=False)  # the mission's
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    team_id = models.UUIDField()
    agent_id = models.UUIDField()
    goal = models.CharField(max_length=80)
    goal_name = models.CharField(max_length=160)
    title = models.CharField(max_length=160)
    standing = models.CharField(max_length=8, choices=Standing.choices)
    decided_on = models.DateField(null=True)  # the local day its outcome was decided
    stamp = models.CharField(max_length=80)  # changes whenever the facts have to be read again
    refreshed_at = models.DateTimeField()

    objects = TenantQuerySet["CostMission"].as_manager()

    class Meta:
        indexes = [models.Index(fields=["organisation", "decided_on"], name="cost_mission_decided")]


class CostDay(models.Model):
    """What one account was charged for one mission on one local day of the hold, per kind. Sums of the journal."""

    id = models.BigAutoField(primary_key=True)
    organisation = models.ForeignKey(
        "tenancy.Organisation", on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )
    team_id = models.UUIDField(null=True)
    account = models.ForeignKey(
        "budgets.Account", on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )
    mission = models.ForeignKey(
        CostMission, on_delete=models.DO_NOTHING, null=True, db_constraint=False, related_name="days"
    )
    day = models.DateField()
    kind = models.CharField(max_length=10, choices=ChargeKind.choices)
    money: models.DecimalField[Decimal, Decimal] = models.DecimalField(max_digits=28, decimal_places=12)
    tokens = models.BigIntegerField()
    steps = models.BigIntegerField()
    lines = models.BigIntegerField()  # how many of the journal are in it

    objects = TenantQuerySet["CostDay"].as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["account", "mission", "day", "kind"], name="cost_day_once", nulls_distinct=False
            )
        ]
        indexes = [models.Index(fields=["organisation", "day"], name="cost_day_by_day")]


class CostActivity(models.Model):
    """What was tried for a mission on one local day: attempts, calls, refusals, and people's time."""

    id = models.BigAutoField(primary_key=True)
    organisation = models.ForeignKey(
        "tenancy.Organisation", on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )
    team_id = models.UUIDField()
    mission = models.ForeignKey(CostMission, on_delete=models.CASCADE, db_index=False, related_name="activity")
    day = models.DateField()
    attempts = models.IntegerField()
    retries = models.IntegerField()
    calls = models.IntegerField()
    denied = models.IntegerField()
    human_seconds = models.IntegerField()

    objects = TenantQuerySet["CostActivity"].as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["mission", "day"], name="cost_activity_once")]
        indexes = [models.Index(fields=["organisation", "day"], name="cost_activity_by_day")]


class CostState(models.Model):
    """How far the folding has come; one row. Its lock is the leave to fold.

    Every line up to `folded_id` is in the sums. Lines up to `noted_id` are complete once every transaction of
    `noted_writers` has ended.
    """

    id = models.SmallIntegerField(primary_key=True)
    folded_id = models.BigIntegerField(default=0)
    noted_id = models.BigIntegerField(default=0)
    noted_writers = models.JSONField(default=list)  # virtual transaction ids
    folded_at = models.DateTimeField(null=True)
    facts_at = models.DateTimeField(null=True)
    checked_at = models.DateTimeField(null=True)
    checked_id = models.BigIntegerField(default=0)
    wrong = models.JSONField(default=list)  # days on which the last whole check found another sum in the journal
