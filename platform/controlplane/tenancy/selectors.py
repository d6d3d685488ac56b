"""Reads of organisations, teams, people and credentials."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import date
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.db.models import Q, QuerySet

from controlplane.common.clock import now
from controlplane.common.closeness import by_closeness
from controlplane.common.errors import not_found
from controlplane.tenancy.models import Membership, Organisation, Team, Token, TokenKind, User
from controlplane.tenancy.types import ALL_TEAMS, ROLE_PERMISSIONS, Permission, Principal, Role


def teams_with(principal: Principal | None, permission: Permission) -> list[Team]:
    """Teams in which the principal holds the permission, by name."""
    return list(Team.objects.restrict(principal, permission).order_by("name"))


def teams(principal: Principal | None) -> QuerySet[Team]:
    """The teams whose members the principal may see."""
    return Team.objects.restrict(principal, Permission.MEMBER_VIEW)


def team(principal: Principal | None, team_id: uuid.UUID) -> Team:
    """Raises 404."""
    found = teams(principal).filter(pk=team_id).first()
    if found is None:
        raise not_found("team")
    return found


def person_of(principal: Principal) -> User | None:
    """Whom the principal acts as; None for machines."""
    return User.objects.filter(pk=principal.user_id).first() if principal.user_id else None


def roles_of(principal: Principal) -> list[tuple[Team | None, Role]]:
    """The principal's own roles, each with where it counts; None: in the whole organisation."""
    teams = Team.objects.in_bulk({team_id for held in principal.roles.values() for team_id in held or ()})
    held = [
        (teams.get(team_id) if team_id else None, role)
        for role, team_ids in principal.roles.items()
        for team_id in ([None] if team_ids is ALL_TEAMS else team_ids)
    ]
    return sorted(held, key=lambda one: (one[0].name if one[0] else "", one[1].value))


def find_people(principal: Principal, *, text: str, limit: int = 5) -> list[User]:
    """Members of the teams the principal may see, by name or e-mail address. One query."""
    held = memberships_seen(principal).standing()
    people = User.objects.filter(pk__in=held.values("user_id"), is_active=True)
    return list(
        people.filter(Q(name__icontains=text) | Q(email__icontains=text)).order_by(by_closeness(text), "name")[:limit]
    )


def holders_of(permission: Permission, *, organisation_id: uuid.UUID, team_id: uuid.UUID | None) -> list[uuid.UUID]:
    """Who holds the permission in that team, or in the organisation as a whole. For telling them, not for judging."""
    roles = [role.value for role in Role if permission in ROLE_PERMISSIONS[role]]
    held = Membership.objects.standing().filter(organisation_id=organisation_id, role__in=roles)
    held = held.filter(Q(team__isnull=True) | Q(team_id=team_id)) if team_id else held.filter(team__isnull=True)
    return sorted(set(held.values_list("user_id", flat=True)))


def people_with_anywhere(principal: Principal, permission: Permission) -> list[User]:
    """Who of the principal's organisation holds the permission in some team, by name."""
    roles = [role.value for role in Role if permission in ROLE_PERMISSIONS[role]]
    held = Membership.objects.standing().filter(organisation_id=principal.organisation_id, role__in=roles)
    return list(User.objects.filter(pk__in=held.values("user_id")).order_by("name"))


def people_of(principal: Principal) -> list[User]:
    """Who belongs to what the principal sees of the organisation, by name."""
    return list(User.objects.filter(pk__in=memberships_seen(principal).values("user_id")).order_by("name"))


def memberships_seen(principal: Principal) -> Membership.MembershipQuerySet:
    """Of the teams whose members the principal sees, and of the whole organisation, which counts in each team."""
    rows = Membership.objects.filter(organisation_id=principal.organisation_id)
    where = principal.teams_with(Permission.MEMBER_VIEW)
    if where is ALL_TEAMS:
        return rows
    return rows.filter(Q(team_id__in=where) | Q(team_id__isnull=True)) if where else rows.none()


def names_of_people(principal: Principal, user_ids: Iterable[uuid.UUID | None]) -> dict[uuid.UUID | None, str]:
    """Of those who belong to the principal's organisation. One query, none without ids."""
    wanted = {key for key in user_ids if key is not None}
    if not wanted:
        return {}
    rows = User.objects.filter(memberships__organisation_id=principal.organisation_id, pk__in=wanted)
    return dict(rows.values_list("pk", "name"))


def organisations_of(user_id: uuid.UUID) -> list[Organisation]:
    """Where a person belongs, by name."""
    held = Membership.objects.standing().filter(user_id=user_id)
    return list(Organisation.objects.filter(pk__in=held.values("organisation_id")).order_by("name"))


def credentials_of_agent(principal: Principal, agent_id: uuid.UUID) -> QuerySet[Token]:
    """The credentials an agent brings itself, the newest first; never their secrets, which are not stored."""
    rows = Token.objects.restrict(principal, Permission.AGENT_VIEW).filter(agent_id=agent_id, kind=TokenKind.AGENT)
    return rows.order_by("-created_at")


def run_tokens_of_agent(principal: Principal, agent_id: uuid.UUID) -> QuerySet[Token]:
    """The tokens of an agent's runs, the newest first."""
    rows = Token.objects.restrict(principal, Permission.AGENT_VIEW).filter(agent_id=agent_id, kind=TokenKind.RUN)
    return rows.order_by("-created_at")


def currency_of(principal: Principal) -> str:
    """The currency of the principal's organisation."""
    return Organisation.objects.values_list("currency", flat=True).get(pk=principal.organisation_id)


def zone_of(principal: Principal) -> ZoneInfo:
    """The time zone of the principal's organisation: where its days, weeks and months begin."""
    return ZoneInfo(Organisation.objects.values_list("time_zone", flat=True).get(pk=principal.organisation_id))


def today_of(principal: Principal) -> date:
    """The organisation's local day, as the ledger keeps days."""
    return now().astimezone(zone_of(principal)).date()


def sign_off_above(principal: Principal) -> Decimal:
    """The budget above which a second person has to agree to a mission of the principal's organisation."""
    return Organisation.objects.values_list("sign_off_above", flat=True).get(pk=principal.organisation_id)
