"""Reads for the pages of members: who belongs to the organisation, where, with which roles, and when they were last
here."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Greatest

from controlplane.common.clock import now
from controlplane.common.errors import not_found
from controlplane.tenancy.models import Membership, Team, Token, TokenKind, User
from controlplane.tenancy.selectors import memberships_seen
from controlplane.tenancy.types import ROLE_PERMISSIONS, Permission, Principal, Role


@dataclass(frozen=True)
class Seat:
    """The roles of one person in one place; `team` None: in the whole organisation."""

    team: Team | None
    roles: list[Role]


@dataclass(frozen=True)
class Person:
    """One line of the list. `last_seen` and `second_factor` are shown only to who manages members."""

    user: User
    seats: list[Seat]
    suspended_at: datetime | None
    last_seen: datetime | None
    second_factor: bool


@dataclass(frozen=True)
class Stakes:
    """What deactivating would end."""

    sessions: int
    tokens: int


def people(principal: Principal, *, text: str = "", state: str = "") -> QuerySet[User]:
    """Who the principal may see. `state`: "active", "deactivated" or everybody."""
    held = memberships_seen(principal)
    if state:
        held = held.filter(suspended_at__isnull=state == "active")
    sessions = UserSession.objects.filter(user_id=OuterRef("pk")).order_by("-last_seen_at")
    codes = Authenticator.objects.filter(user_id=OuterRef("pk"), type=Authenticator.Type.TOTP)
    found = User.objects.filter(pk__in=held.values("user_id")).annotate(
        used=Greatest(Subquery(sessions.values("last_seen_at")[:1]), F("last_login")), second_factor=Exists(codes)
    )
    return found.filter(Q(name__icontains=text) | Q(email__icontains=text)) if text else found


def lines(principal: Principal, users: Iterable[User]) -> list[Person]:
    """The people of one page with their roles, in one query."""
    users = list(users)
    held: dict[uuid.UUID, list[Membership]] = {}
    rows = memberships_seen(principal).filter(user__in=users).select_related("team").order_by("team__name", "pk")
    for row in rows:
        held.setdefault(row.user_id, []).append(row)
    return [
        Person(
            user=user,
            seats=_seats(held.get(user.pk, [])),
            suspended_at=held[user.pk][0].suspended_at if user.pk in held else None,
            last_seen=user.used,  # type: ignore[attr-defined]
            second_factor=user.second_factor,  # type: ignore[attr-defined]
        )
        for user in users
    ]


def person(principal: Principal, user_id: uuid.UUID) -> Person:
    """For who may change their roles. Raises 404 `member.not_found`."""
    user = people(principal).filter(pk=user_id).first() if principal.has_anywhere(Permission.MEMBER_WRITE) else None
    if user is None:
        raise not_found("member")
    return lines(principal, [user])[0]


def member(principal: Principal, user_id: uuid.UUID) -> Person:
    """For who may see members. Raises 404 `member.not_found`."""
    user = people(principal).filter(pk=user_id).first()
    if user is None:
        raise not_found("member")
    return lines(principal, [user])[0]


def held_by(principal: Principal, user_id: uuid.UUID) -> frozenset[tuple[uuid.UUID | None, Role]]:
    """Every role of the person in the organisation, for `members.fingerprint`."""
    rows = Membership.objects.filter(organisation_id=principal.organisation_id, user_id=user_id)
    return frozenset((row.team_id, Role(row.role)) for row in rows)


def places(principal: Principal) -> list[Team | None]:
    """Where the principal may give roles: None for the whole organisation, then teams by name."""
    teams: list[Team | None] = list(Team.objects.restrict(principal, Permission.MEMBER_WRITE).order_by("name"))
    return [None, *teams] if principal.has(Permission.MEMBER_WRITE) else teams


def stakes(principal: Principal, user: User) -> Stakes:
    live = Token.objects.filter(
        organisation_id=principal.organisation_id, user=user, kind=TokenKind.PERSON, revoked_at__isnull=True
    )
    return Stakes(
        sessions=UserSession.objects.filter(user_id=user.pk).count(), tokens=live.filter(expires_at__gt=now()).count()
    )


def role_table() -> list[tuple[Permission, Mapping[Role, bool]]]:
    """What each role can do, from the very map that decides. Permissions no role has are for machines."""
    return [
        (permission, {role: permission in ROLE_PERMISSIONS[role] for role in Role})
        for permission in Permission
        if any(permission in ROLE_PERMISSIONS[role] for role in Role)
    ]


def _seats(rows: list[Membership]) -> list[Seat]:
    seats: dict[uuid.UUID | None, Seat] = {}
    for row in sorted(rows, key=lambda item: item.team_id is not None):
        seats.setdefault(row.team_id, Seat(row.team, [])).roles.append(Role(row.role))
    return list(seats.values())
