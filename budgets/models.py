"""The ledger's tables. Money moves only inside the PL/pgSQL functions of migration 0002; Python reads and sets limits.

What counts carries the vector (money, tokens, steps) as columns of one row, so a level of the tree is one row to lock.
"""

from __future__ import annotations

from decimal import Decimal

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import BrinIndex, GinIndex
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Least
from django.db.models.lookups import GreaterThanOrEqual

from budgets.types import ChangeState, HoldState, RateKind, WindowKind
from controlplane.common.ids import new_id
from controlplane.tenancy.querysets import TenantQuerySet


def _money(default: int | None = None) -> models.DecimalField[Decimal | int | str, Decimal]:
    return models.DecimalField(
        max_digits=28, decimal_places=12, default=models.NOT_PROVIDED if default is None else default
    )


def _money_or_nothing() -> models.DecimalField[Decimal | int | str | None, Decimal | None]:
    return models.DecimalField(max_digits=28, decimal_places=12, null=True)


class AccountQuerySet(TenantQuerySet["Account"]):
    mission_path = "subject_id"


class Account(models.Model):
    """A node of an organisation's budget tree, never moved, never deleted. `path`: the ids from the root to itself."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    team = models.ForeignKey("tenancy.Team", on_delete=models.PROTECT, null=True, related_name="+")
    parent = models.ForeignKey("self", on_delete=models.PROTECT, null=True, related_name="children")
    path = ArrayField(models.UUIDField())
    depth = models.SmallIntegerField()  # 0 at the root
    level = models.CharField(max_length=16)
    name = models.CharField(max_length=160)
    # What the budget is for, owned by the pillars above: ("mission", id), ("agent", id), ("team", id) …
    subject_type = models.CharField(max_length=40, blank=True)
    subject_id = models.UUIDField(null=True)
    frozen = models.BooleanField(default=False)  # by a person; an overrun freezes only its window
    frozen_reason = models.CharField(max_length=300, blank=True)
    closed_at = models.DateTimeField(null=True)  # what it was for is over: frozen for good
    # The loop guard: how often one call may give one result with nothing new in between, and in the whole ring.
    guard_repeats = models.SmallIntegerField(default=3)  # 0: no guard
    guard_ring_repeats = models.SmallIntegerField(default=10)
    guard_ring = models.SmallIntegerField(default=32)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = AccountQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organisation", "subject_type", "subject_id"],
                condition=Q(subject_id__isnull=False),
                name="budget_subject_once",
            ),
            models.CheckConstraint(
                condition=Q(guard_repeats__gte=0, guard_ring_repeats__gte=2, guard_ring__range=(4, 256)),
                name="budget_guard_sane",
            ),
        ]
        indexes = [
            models.Index(fields=["subject_id"], name="budget_by_subject", condition=Q(subject_id__isnull=False)),
            GinIndex(fields=["path"], name="budget_by_path"),  # all below one
        ]

    def __str__(self) -> str:
        return self.name


class AccountLimit(models.Model):
    """What people want the account to be limited to, per kind of window. Empty: no limit of its own in that unit."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, db_index=False, related_name="limits")
    kind = models.CharField(max_length=8, choices=WindowKind.choices)
    money = _money_or_nothing()
    tokens = models.BigIntegerField(null=True)
    steps = models.BigIntegerField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "kind"], name="budget_limit_once"),
            models.CheckConstraint(
                condition=(Q(money__isnull=True) | Q(money__gte=0, money__lt=10**16))
                & (Q(tokens__isnull=True) | Q(tokens__gte=0))
                & (Q(steps__isnull=True) | Q(steps__gte=0)),
                name="budget_limit_not_negative",
            ),
        ]


class Window(models.Model):
    """One account in one period, made when first needed. `spent` is charged within the limit, `overrun` beyond it."""

    id = models.BigAutoField(primary_key=True)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, db_index=False, related_name="windows")
    kind = models.CharField(max_length=8, choices=WindowKind.choices)
    depth = models.SmallIntegerField()  # of the account: rows are always locked by (-depth, account, kind, starts_at)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    limit_money = _money_or_nothing()
    limit_tokens = models.BigIntegerField(null=True)
    limit_steps = models.BigIntegerField(null=True)
    held_money = _money(default=0)
    held_tokens = models.BigIntegerField(default=0)
    held_steps = models.BigIntegerField(default=0)
    spent_money = _money(default=0)
    spent_tokens = models.BigIntegerField(default=0)
    spent_steps = models.BigIntegerField(default=0)
    overrun_money = _money(default=0)
    overrun_tokens = models.BigIntegerField(default=0)
    overrun_steps = models.BigIntegerField(default=0)
    frozen = models.BooleanField(default=False)
    lowering = models.BooleanField(default=False)  # the wanted limit is below held + spent

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["account", "kind", "starts_at"], name="budget_window_once"),
            # One check, and a short one: the database reads its text anew at every update of a hot row.
            models.CheckConstraint(
                condition=Q(GreaterThanOrEqual(Least("held_money", "spent_money", "overrun_money"), 0))
                & Q(GreaterThanOrEqual(Least("held_tokens", "spent_tokens", "overrun_tokens"), 0))
                & Q(GreaterThanOrEqual(Least("held_steps", "spent_steps", "overrun_steps"), 0))
                & Q(limit_money__gte=F("held_money") + F("spent_money"))
                & Q(limit_tokens__gte=F("held_tokens") + F("spent_tokens"))
                & Q(limit_steps__gte=F("held_steps") + F("spent_steps")),
                name="budget_window_within_limit",  # without a limit the comparison is NULL, which a check lets pass
            ),
        ]


class Chain(models.Model):
    """The windows an account's reserves pass now, leaf → root. A cache: made when first needed, dropped when the
    account or a level above gets a new kind of window, or the organisation another time zone."""

    account = models.OneToOneField(
        Account, on_delete=models.PROTECT, primary_key=True, db_constraint=False, related_name="+"
    )
    window_ids = ArrayField(models.BigIntegerField())
    valid_from = models.DateTimeField()
    valid_until = models.DateTimeField()


class Hold(models.Model):
    """Money set aside before something is done. The id is the caller's and makes every call idempotent.

    No foreign keys in the database: the functions have read both rows, and a shared row's key locks would be a queue.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    organisation = models.ForeignKey(
        "tenancy.Organisation", on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )
    account = models.ForeignKey(
        Account, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )
    request_hash = models.BinaryField()
    window_ids = ArrayField(models.BigIntegerField())  # leaf → root
    money = _money()
    tokens = models.BigIntegerField()
    steps = models.BigIntegerField()
    actual_money = _money_or_nothing()
    actual_tokens = models.BigIntegerField(null=True)
    actual_steps = models.BigIntegerField(null=True)
    state = models.CharField(max_length=10, choices=HoldState.choices)
    provisional = models.BooleanField(default=False)  # nobody reported: a late report corrects it
    action_id = models.UUIDField(null=True)
    mission_id = models.UUIDField(null=True)
    rate_ids = ArrayField(models.BigIntegerField(), null=True)  # the prices it was charged at
    ttl_seconds = models.IntegerField()
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["expires_at"], name="budget_hold_open", condition=Q(closed_at__isnull=True))]


class Guard(models.Model):
    """The loop guard's memory of one leaf account: the last results, and the calls that stopped making progress."""

    account = models.OneToOneField(Account, on_delete=models.PROTECT, primary_key=True, related_name="guard")
    results = models.BigIntegerField(default=0)
    pairs = ArrayField(models.BinaryField(), default=list)  # digests of (signature, result), newest last
    since_new = models.IntegerField(default=0)  # how many of them since the last one never seen in the ring
    blocked = ArrayField(models.BinaryField(), default=list)  # digests of refused signatures
    updated_at = models.DateTimeField()


class Allocation(models.Model):
    """One decision about how much an account gets. Append-only (trigger): the history of every limit."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="allocations")
    kind = models.CharField(max_length=8, choices=WindowKind.choices)
    money = _money_or_nothing()
    tokens = models.BigIntegerField(null=True)
    steps = models.BigIntegerField(null=True)
    actor_kind = models.CharField(max_length=16)
    actor_id = models.UUIDField()
    actor_name = models.CharField(max_length=120)
    action_id = models.UUIDField(null=True)  # the decided action it came from
    reason = models.CharField(max_length=300, blank=True)
    at = models.DateTimeField(auto_now_add=True)


class LimitChange(models.Model):
    """A limit somebody wants to raise by more than one person may: it waits for a second one. Newest wins."""

    class ChangeQuerySet(TenantQuerySet["LimitChange"]):
        team_path = "account__team_id"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="changes")
    kind = models.CharField(max_length=8, choices=WindowKind.choices)
    money = _money_or_nothing()
    tokens = models.BigIntegerField(null=True)
    steps = models.BigIntegerField(null=True)
    seen = models.CharField(max_length=40, blank=True)  # the wording of the limit it started from
    reason = models.CharField(max_length=300)
    proposer_id = models.UUIDField()
    proposer_name = models.CharField(max_length=120)
    proposed_at = models.DateTimeField()
    state = models.CharField(max_length=10, choices=ChangeState.choices, default=ChangeState.OPEN)
    decider_name = models.CharField(max_length=120, blank=True)
    decided_at = models.DateTimeField(null=True)

    objects = ChangeQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["account", "kind"], condition=Q(state="open"), name="budget_change_open_once"
            )
        ]


class Alert(models.Model):
    """A window has spent a share of its limit. Once per window and threshold, whatever happens to the limit later."""

    class AlertQuerySet(TenantQuerySet["Alert"]):
        pass

    id = models.BigAutoField(primary_key=True)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    team_id = models.UUIDField(null=True)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="alerts")
    window = models.ForeignKey(Window, on_delete=models.PROTECT, db_index=False, related_name="alerts")
    threshold = models.SmallIntegerField()  # per cent
    spent_money = _money()
    limit_money = _money()
    at = models.DateTimeField()

    objects = AlertQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["window", "threshold"], name="budget_alert_once")]
        indexes = [models.Index(fields=["organisation", "-id"], name="budget_alert_newest")]


class DailySpend(models.Model):
    """What a leaf account was charged per local day of the hold. Dashboards read this, never the journal."""

    account = models.ForeignKey(
        Account, on_delete=models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )
    day = models.DateField()
    money = _money()
    tokens = models.BigIntegerField()
    steps = models.BigIntegerField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["account", "day"], name="budget_day_once")]
        indexes = [BrinIndex(fields=["day"], name="budget_day_newest", pages_per_range=32, autosummarize=True)]


class FormerZone(models.Model):
    """The time zone in which the days of an organisation were counted until then; see `budgets.zones`."""

    id = models.BigAutoField(primary_key=True)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, db_index=False, related_name="+")
    zone = models.CharField(max_length=64)
    until = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organisation", "until"], name="budget_zone_once")]


class Price(models.Model):
    """A dated rate. Organisation empty: for everyone; its own rate wins. Never changed in place."""

    id = models.BigAutoField(primary_key=True)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, null=True, related_name="+")
    kind = models.CharField(max_length=16, choices=[(kind.value, kind.label) for kind in RateKind])
    key = models.CharField(max_length=160, default="*")  # qualified tool, `server__*`, provider/model, or `*`
    token_class = models.CharField(
        max_length=24, blank=True
    )  # model tokens: uncached_input, cache_read, cache_write, output
    amount = _money()
    currency = models.CharField(max_length=3)
    valid_from = models.DateTimeField()
    source = models.CharField(max_length=200)
    source_sha256 = models.CharField(max_length=71)
    approved_by = models.CharField(max_length=120)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organisation", "kind", "key", "token_class", "currency", "valid_from"],
                name="price_once",
                nulls_distinct=False,
            ),
            models.CheckConstraint(condition=Q(amount__gte=0, amount__lt=10**16), name="price_not_negative"),
        ]


class JournalEntry(models.Model):
    """One event of the ledger. Append-only, partitioned by month. Migration 0002 makes this table and, for settlements,
    `budgets_posting` with their two sides, which have to sum to zero in every unit."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField()
    organisation = models.ForeignKey(
        "tenancy.Organisation", on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    account = models.ForeignKey(Account, on_delete=models.PROTECT, db_constraint=False, related_name="+")
    kind = models.CharField(max_length=12)
    hold_id = models.UUIDField(null=True)
    mission_id = models.UUIDField(null=True)
    action_id = models.UUIDField(null=True)
    money = _money()
    tokens = models.BigIntegerField()
    steps = models.BigIntegerField()
    note = models.TextField(blank=True)

    class Meta:
        managed = False
        db_table = "budgets_journal"


from budgets.costs.models import CostActivity, CostDay, CostMission, CostState  # noqa: E402, F401 Django looks here
