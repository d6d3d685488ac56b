"""Organisations, teams, people, their roles, and the credentials of people and machines."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar, Self

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Lower

from controlplane.common.ids import new_id
from controlplane.tenancy.querysets import TenantQuerySet
from controlplane.tenancy.types import Role


class Organisation(models.Model):
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=60, unique=True)
    currency = models.CharField(max_length=3, default="USD")
    time_zone = models.CharField(max_length=64, default="UTC")
    # Missions with a larger budget need a second person's sign-off, in the organisation's currency.
    sign_off_above = models.DecimalField(max_digits=28, decimal_places=12, default=5)
    # Tokens issued from now on live at most so long.
    token_days_max = models.PositiveSmallIntegerField(default=366, db_default=366)
    # People without a second factor set one up before they see anything.
    second_factor_required = models.BooleanField(default=False, db_default=False)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name


class Team(models.Model):
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey(Organisation, on_delete=models.PROTECT, related_name="teams")
    name = models.CharField(max_length=120)
    slug = models.SlugField(max_length=60)
    created_at = models.DateTimeField(auto_now_add=True)

    class TeamQuerySet(TenantQuerySet["Team"]):
        team_path = "id"

    objects = TeamQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organisation", "slug"], name="team_slug_once")]

    def __str__(self) -> str:
        return self.name


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user


class User(AbstractBaseUser, PermissionsMixin):
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    email = models.EmailField(max_length=254)
    name = models.CharField(max_length=120)
    time_zone = models.CharField(max_length=64, default="UTC")
    preferences = models.JSONField(default=dict, blank=True)
    is_active = models.BooleanField(default=True)
    is_staff = False  # there is no Django admin: every change goes through an audited service
    date_joined = models.DateTimeField(auto_now_add=True)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = ["name"]
    objects = UserManager()

    class Meta:
        constraints = [models.UniqueConstraint(Lower("email"), name="user_email_once")]

    def __str__(self) -> str:
        return self.name or self.email


class Membership(models.Model):
    """One role of one person, in one team or (team empty) in the whole organisation."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey(Organisation, on_delete=models.CASCADE, related_name="memberships")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, null=True, blank=True, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=[(role.value, role.label) for role in Role])
    created_at = models.DateTimeField(auto_now_add=True)
    # Set for all roles of a person at once when an administrator deactivates them in the organisation.
    suspended_at = models.DateTimeField(null=True, blank=True)

    class MembershipQuerySet(TenantQuerySet["Membership"]):
        def standing(self) -> Self:
            """Roles that count: not those of people who were deactivated in the organisation."""
            return self.filter(suspended_at__isnull=True, user__is_active=True)

    objects = MembershipQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organisation", "team", "user", "role"], name="membership_once", nulls_distinct=False
            )
        ]


class Invitation(models.Model):
    """An address that may join with these roles. The link's secret is stored as a keyed hash; it works once."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey(Organisation, on_delete=models.CASCADE, related_name="invitations")
    email = models.EmailField(max_length=254)
    roles = models.JSONField()  # [{"role": "builder", "team": "<id>" | null}]
    hash = models.CharField(max_length=64, unique=True)
    invited_by = models.ForeignKey(User, on_delete=models.CASCADE, related_name="invitations_sent")
    created_at = models.DateTimeField(auto_now_add=True)
    linked_at = models.DateTimeField()  # when the link that works now was made
    expires_at = models.DateTimeField()
    mailed_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    accepted_at = models.DateTimeField(null=True, blank=True)
    accepted_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")

    class InvitationQuerySet(TenantQuerySet["Invitation"]):
        team_path = None

        def open(self) -> Self:
            """Neither used nor taken back; perhaps expired."""
            return self.filter(accepted_at__isnull=True, revoked_at__isnull=True)

    objects = InvitationQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                "organisation",
                Lower("email"),
                condition=models.Q(accepted_at__isnull=True, revoked_at__isnull=True),
                name="invitation_open_once",
            )
        ]


class TokenKind(models.TextChoices):
    PERSON = "pat", "Personal"
    SERVICE = "svc", "Service"
    AGENT = "agt", "Agent"
    RUN = "run", "Run"


class Token(models.Model):
    """A bearer credential. Only a keyed hash is stored; `hint` is the last four characters, for people to recognise
    it."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    organisation = models.ForeignKey(Organisation, on_delete=models.CASCADE, related_name="tokens")
    team = models.ForeignKey(Team, on_delete=models.CASCADE, null=True, blank=True)
    kind = models.CharField(max_length=3, choices=TokenKind.choices)
    name = models.CharField(max_length=120)
    hash = models.CharField(max_length=64, unique=True)
    hint = models.CharField(max_length=4)
    user = models.ForeignKey(User, on_delete=models.CASCADE, null=True, blank=True, related_name="tokens")
    # What a machine's token is bound to; the pillars above own those rows, so these are ids, not foreign keys.
    agent_id = models.UUIDField(null=True, blank=True, db_index=True)
    mission_id = models.UUIDField(null=True, blank=True)
    run_id = models.UUIDField(null=True, blank=True, db_index=True)
    scopes = ArrayField(models.CharField(max_length=40), null=True, blank=True)
    # Who made it, and the token it took over from.
    created_by = models.ForeignKey(User, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    replaces = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, blank=True, related_name="replaced_by")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    objects = TenantQuerySet.as_manager()


class SignInLink(models.Model):
    """A one-time sign-in link, printed by an operator's command. Used once, short-lived, hashed."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    hash = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True, blank=True)
