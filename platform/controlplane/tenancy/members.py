"""Teams and memberships: who may do what where. Every change is audited; the last administrator stays."""

from __future__ import annotations

import uuid

from django.db import IntegrityError, transaction
from django.utils.text import slugify

from controlplane.common.errors import FieldError, conflict, forbidden, invalid, not_found
from controlplane.tenancy import trail
from controlplane.tenancy.models import Membership, Organisation, Team, User
from controlplane.tenancy.types import ALL_TEAMS, Permission, Principal, Role


def add_team(*, principal: Principal, name: str) -> Team:
    """A new team of the principal's organisation. Raises 403, 422 `team.invalid`, 409 `team.exists`."""
    principal.require(Permission.ORGANISATION_WRITE)
    name = " ".join(name.split())
    slug = slugify(name)[:60]
    if not slug or len(name) > 120:
        raise invalid("team.invalid", "A team needs a name.", FieldError("/name", "1 to 120 characters, letters in it"))
    try:
        with transaction.atomic():
            team = Team.objects.create(organisation_id=principal.organisation_id, name=name, slug=slug)
            trail.record(
                event="team.created",
                actor=principal,
                subject_type="team",
                subject_id=team.pk,
                subject_name=team.name,
                team_id=team.pk,
            )
    except IntegrityError as error:
        raise conflict("team.exists", f"There is a team “{name}” already.", "Choose another name.") from error
    return team


def add_member(*, principal: Principal, user: User, role: Role, team_id: uuid.UUID | None = None) -> Membership:
    """Give a role in one team or, without one, in the whole organisation. Having it already changes nothing."""
    team = _team(principal, team_id)
    with transaction.atomic():
        membership, is_new = Membership.objects.get_or_create(
            organisation_id=principal.organisation_id, team=team, user=user, role=role.value
        )
        if is_new:
            _tell("member.added", principal, membership)
    return membership


def remove_member(*, principal: Principal, membership_id: uuid.UUID) -> None:
    """Take one role away. Raises 404, and 409 `member.last_administrator` for the last who could give roles again."""
    with transaction.atomic():
        # The organisation's row is the lock: two administrators who remove each other come one after the other.
        Organisation.objects.select_for_update().get(pk=principal.organisation_id)
        membership = (
            Membership.objects.restrict(principal, Permission.MEMBER_WRITE)
            .select_related("user", "team")
            .filter(pk=membership_id)
            .first()
        )
        if membership is None:
            raise not_found("member")
        if _is_last_administrator(membership):
            raise conflict(
                "member.last_administrator",
                "The organisation would be left without an administrator.",
                "Make somebody else administrator first.",
            )
        _tell("member.removed", principal, membership)
        membership.delete()


def _team(principal: Principal, team_id: uuid.UUID | None) -> Team | None:
    if team_id is None:
        principal.require(Permission.MEMBER_WRITE)
        return None
    team = Team.objects.restrict(principal, Permission.MEMBER_WRITE).filter(pk=team_id).first()
    if team is None:
        if principal.teams_with(Permission.MEMBER_WRITE) is not ALL_TEAMS:
            raise forbidden(Permission.MEMBER_WRITE.value)
        raise not_found("team")
    return team


def _is_last_administrator(membership: Membership) -> bool:
    administrators = Membership.objects.filter(
        organisation_id=membership.organisation_id, team__isnull=True, role=Role.ADMIN.value, user__is_active=True
    )
    return administrators.filter(pk=membership.pk).exists() and not administrators.exclude(pk=membership.pk).exists()


def _tell(event: str, principal: Principal, membership: Membership) -> None:
    trail.record(
        event=event,
        actor=principal,
        subject_type="person",
        subject_id=membership.user.pk,
        subject_name=str(membership.user),
        team_id=membership.team_id,
        payload={"role": membership.role, "team": membership.team.name if membership.team else ""},
    )
