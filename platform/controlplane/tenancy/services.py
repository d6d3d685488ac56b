"""Sign-in, principals, organisations, teams and memberships. Callers of writes pass the acting principal."""

from __future__ import annotations

import secrets
import uuid
from datetime import timedelta

from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import barring, tokens
from controlplane.tenancy.models import Membership, SignInLink, TokenKind, User
from controlplane.tenancy.types import ALL_TEAMS, Permission, Principal, PrincipalKind, Role

_KINDS = {
    TokenKind.SERVICE: PrincipalKind.SERVICE,
    TokenKind.AGENT: PrincipalKind.AGENT,
    TokenKind.RUN: PrincipalKind.RUN,
}


def principal_of_user(*, user: User, organisation_id: uuid.UUID | None = None) -> Principal | None:
    """The person inside one of their organisations (the first by name when none is asked for); None without a
    membership."""
    memberships = (
        Membership.objects.standing().filter(user=user).select_related("organisation").order_by("organisation__name")
    )
    if organisation_id is not None:
        memberships = memberships.filter(organisation_id=organisation_id)
    rows = list(memberships)
    if not rows or not user.is_active:
        return None
    organisation = rows[0].organisation
    return Principal(
        kind=PrincipalKind.USER,
        id=user.pk,
        user_id=user.pk,
        name=user.name or user.email,
        organisation_id=organisation.pk,
        organisation_name=organisation.name,
        roles=_roles([row for row in rows if row.organisation_id == organisation.pk]),
        time_zone=user.time_zone,
        second_factor_required=organisation.second_factor_required,
    )


def principal_of_token(text: str) -> Principal:
    """The machine or person behind a bearer token. Raises 401 `token.*`."""
    token = tokens.recognise(text)
    # A scope this version does not know grants nothing.
    scopes = None if token.scopes is None else frozenset(item for item in Permission if item.value in token.scopes)
    if token.kind == TokenKind.PERSON:
        user = User.objects.filter(pk=token.user_id).first() if token.user_id else None
        person = user and principal_of_user(user=user, organisation_id=token.organisation_id)
        if not person:
            raise RemitError("token.owner_gone", "The person this token belongs to has left the organisation.", 401)
        return _with(person, token=token, scopes=scopes)
    if token.kind == TokenKind.AGENT:  # a run's token is revoked instead
        barring.require_not_barred(token)
    return Principal(
        kind=_KINDS[TokenKind(token.kind)],
        id=token.run_id or token.agent_id or token.id,
        name=token.name,
        organisation_id=token.organisation_id,
        organisation_name=token.organisation_name,
        roles={Role.AUDITOR: ALL_TEAMS} if token.kind == TokenKind.SERVICE else {},
        team_id=token.team_id,
        agent_id=token.agent_id,
        mission_id=token.mission_id,
        run_id=token.run_id,
        token_id=token.id,
        scopes=scopes,
    )


def make_sign_in_link(*, user: User, ttl: timedelta = timedelta(hours=12)) -> str:
    """The secret of a one-time link, `/sign-in/<secret>`. For operators: `manage.py signin`."""
    secret = secrets.token_urlsafe(32)
    SignInLink.objects.create(user=user, hash=tokens.keyed_hash(secret), expires_at=now() + ttl)
    return secret


def person_of_sign_in_link(*, secret: str) -> User | None:
    """Whom the link would sign in; None when it was used, has expired or never was one. Spends nothing."""
    rows = SignInLink.objects.select_related("user").filter(hash=tokens.keyed_hash(secret), used_at__isnull=True)
    link = rows.filter(expires_at__gt=now(), user__is_active=True).first()
    return link.user if link else None


def redeem_sign_in_link(*, secret: str) -> User:
    """The person the link signs in; a link works once. Raises 410 `sign_in_link.spent`."""
    moment = now()
    links = SignInLink.objects.filter(hash=tokens.keyed_hash(secret), user__is_active=True)
    link = links.select_related("user").first()
    # By columns of its own row only: a condition on another table becomes a subquery, and PostgreSQL does not ask that
    # anew for a row that somebody else has just changed.
    unused = SignInLink.objects.filter(used_at__isnull=True, expires_at__gt=moment)
    if link is None or not unused.filter(pk=link.pk).update(used_at=moment):
        raise RemitError(
            "sign_in_link.spent",
            "This sign-in link was used or has expired.",
            410,
            remedies=("Make a new one with `./manage.py signin --user E-MAIL`.",),
        )
    return link.user


def _roles(memberships: list[Membership]) -> dict[Role, frozenset[uuid.UUID] | None]:
    roles: dict[Role, frozenset[uuid.UUID] | None] = {}
    for membership in memberships:
        role = Role(membership.role)
        where = roles.get(role, frozenset())
        if membership.team_id is None or where is ALL_TEAMS:
            roles[role] = ALL_TEAMS
        else:
            roles[role] = where | {membership.team_id}
    return roles


def _with(person: Principal, *, token: tokens.KnownToken, scopes: frozenset[Permission] | None) -> Principal:
    return Principal(**{**person.__dict__, "token_id": token.id, "scopes": scopes})
