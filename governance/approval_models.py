"""Who is asked and how they are told: groups, routes, delegations, what was said, notices, broken glass."""

from __future__ import annotations

from django.db import models

from controlplane.common.ids import new_id
from controlplane.tenancy.querysets import TenantQuerySet
from governance.choices import ASKING, MessageKind, NoticeKind, ReviewVerdict


class ApproverGroup(models.Model):
    """People who are asked together. Membership alone decides nothing: the approver's role is needed beside it."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    team = models.ForeignKey("tenancy.Team", on_delete=models.PROTECT, null=True, related_name="+")
    name = models.CharField(max_length=80)
    members = models.ManyToManyField("tenancy.User", related_name="+")
    retired_at = models.DateTimeField(null=True)  # kept for the questions that were asked of it
    created_at = models.DateTimeField(auto_now_add=True)

    class GroupQuerySet(TenantQuerySet["ApproverGroup"]):
        team_path = None

    objects = GroupQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organisation", "name"],
                condition=models.Q(retired_at__isnull=True),
                name="approver_group_name_once",
            )
        ]

    def __str__(self) -> str:
        return self.name


class ApprovalRoute(models.Model):
    """Where a question goes; the first that fits, by position. What is empty fits everything."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    position = models.IntegerField()
    name = models.CharField(max_length=80)
    kind = models.CharField(max_length=40, blank=True)
    team = models.ForeignKey("tenancy.Team", on_delete=models.PROTECT, null=True, related_name="+")
    amount_above = models.DecimalField(max_digits=28, decimal_places=12, null=True)
    amount_argument = models.CharField(max_length=80, blank=True)  # empty: the amount the kind itself names
    only_irreversible = models.BooleanField(default=False)
    group = models.ForeignKey(ApproverGroup, on_delete=models.PROTECT, null=True, related_name="+")
    needed = models.IntegerField(default=1)
    answer_seconds = models.IntegerField(null=True)  # empty: as long as the kind of action gives
    next_group = models.ForeignKey(ApproverGroup, on_delete=models.PROTECT, null=True, related_name="+")
    next_seconds = models.IntegerField(null=True)  # empty: there is no next tier
    created_at = models.DateTimeField(auto_now_add=True)

    class RouteQuerySet(TenantQuerySet["ApprovalRoute"]):
        team_path = None

    objects = RouteQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organisation", "position"], name="approval_route_order", deferrable=models.Deferrable.DEFERRED
            ),
            models.CheckConstraint(condition=models.Q(needed__gte=1), name="approval_route_needs_one"),
        ]


class Delegation(models.Model):
    """For a time, `to_user` stands in for `from_user` in the groups that one is in. It gives no role."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    from_user = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, related_name="+")
    to_user = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, related_name="+")
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    reason = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class DelegationQuerySet(TenantQuerySet["Delegation"]):
        team_path = None

    objects = DelegationQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["organisation", "ends_at"], name="delegation_by_end")]
        constraints = [
            models.CheckConstraint(
                condition=~models.Q(from_user=models.F("to_user")), name="delegation_to_somebody_else"
            )
        ]


class EscalationMessage(models.Model):
    """Something said beside a question. `answer`: the agent's own words, never more than that. Never changed,
    except that erasing a person takes out what they wrote."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    escalation = models.ForeignKey("governance.Escalation", on_delete=models.PROTECT, related_name="messages")
    kind = models.CharField(max_length=8, choices=MessageKind.choices)
    author_id = models.UUIDField()
    author_name = models.CharField(max_length=120)
    text = models.CharField(max_length=2000)
    answers = models.OneToOneField("self", on_delete=models.PROTECT, null=True, related_name="answer")
    created_at = models.DateTimeField(auto_now_add=True)


class Notice(models.Model):
    """One person is told one thing, once: about a question, by mail too where `mail` says so, or, in `text`, about what
    became of a mission, a budget, a stop or something asked for."""

    class NoticeQuerySet(TenantQuerySet["Notice"]):
        pass

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    user = models.ForeignKey("tenancy.User", on_delete=models.CASCADE, related_name="+")
    escalation = models.ForeignKey("governance.Escalation", on_delete=models.PROTECT, null=True, related_name="+")
    team_id = models.UUIDField(null=True)  # of what it tells of, where that is no question
    subject_type = models.CharField(max_length=8, blank=True, db_default="")  # "mission", "budget" or "stop"
    subject_id = models.UUIDField(null=True)
    text = models.CharField(max_length=300, blank=True, db_default="")
    kind = models.CharField(max_length=12, choices=NoticeKind.choices)
    about_id = models.UUIDField()  # the question's tier, the message, the broken glass, the action… it tells of
    created_at = models.DateTimeField(auto_now_add=True)
    read_at = models.DateTimeField(null=True)
    mail = models.BooleanField(default=False)
    mail_attempts = models.IntegerField(default=0)
    mailed_at = models.DateTimeField(null=True)

    objects = NoticeQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "kind", "about_id"], name="notice_once")]
        indexes = [
            models.Index(fields=["user", "organisation", "-id"], name="notice_by_person"),
            models.Index(fields=["id"], name="notice_to_mail", condition=models.Q(mail=True, mailed_at__isnull=True)),
        ]

    @property
    def title(self) -> str:
        return self.escalation.title if self.escalation is not None else self.text

    @property
    def is_settled(self) -> bool:
        """It asked for an answer that is not wanted any more. Reads `escalation`."""
        return self.escalation is not None and self.kind in ASKING and self.escalation.closed_at is not None


class BreakGlass(models.Model):
    """One question passed over by one person in an emergency, and what another person later said of it."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey("tenancy.Organisation", on_delete=models.PROTECT, related_name="+")
    team = models.ForeignKey("tenancy.Team", on_delete=models.PROTECT, related_name="+")
    # An action may need it twice: what let it through is judged again when it runs, and another rule may ask then.
    action = models.ForeignKey("governance.Action", on_delete=models.PROTECT, related_name="broken_glass")
    escalation = models.OneToOneField("governance.Escalation", on_delete=models.PROTECT, related_name="+")
    by = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, related_name="+")
    reason = models.CharField(max_length=500)
    policies = models.JSONField(default=list)  # what it lifted
    at = models.DateTimeField()
    usable_until = models.DateTimeField()
    reviewed_by = models.ForeignKey("tenancy.User", on_delete=models.PROTECT, null=True, related_name="+")
    reviewed_at = models.DateTimeField(null=True)
    verdict = models.CharField(max_length=13, choices=ReviewVerdict.choices, blank=True)
    note = models.CharField(max_length=500, blank=True)

    class BreakGlassQuerySet(TenantQuerySet["BreakGlass"]):
        pass

    objects = BreakGlassQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(reviewed_by__isnull=True) | ~models.Q(reviewed_by=models.F("by")),
                name="break_glass_reviewed_by_another",
            )
        ]
        indexes = [
            models.Index(fields=["organisation"], name="break_glass_open", condition=models.Q(reviewed_at__isnull=True))
        ]
