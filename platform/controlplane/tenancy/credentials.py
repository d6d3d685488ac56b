"""Issuing, replacing and revoking tokens on someone's behalf, audited. How one is made and recognised: `tokens`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Q, QuerySet

from controlplane.common.clock import now
from controlplane.common.errors import FieldError, RemitError, conflict, forbidden, invalid, not_found
from controlplane.tenancy import tokens, trail
from controlplane.tenancy.models import Membership, Organisation, Token, TokenKind, User
from controlplane.tenancy.types import (
    ROLE_PERMISSIONS,
    Permission,
    Principal,
    PrincipalKind,
    Role,
    system_principal,
)
from controlplane.tenancy.watching import access_changed

LONGEST_LIFE: Final = timedelta(days=366)
LONGEST_OVERLAP: Final = timedelta(days=7)
_KNOWN: Final = frozenset(item.value for item in Permission)
SERVICE_PERMISSIONS: Final = ROLE_PERMISSIONS[Role.AUDITOR]  # what `services` lets a service token do at most


@dataclass(frozen=True)
class AgentIdentity:
    """What a token of an agent is bound to."""

    id: uuid.UUID
    team_id: uuid.UUID
    name: str


AgentLookup = Callable[[uuid.UUID, str], AgentIdentity | None]
_AGENTS: Final[list[AgentLookup]] = []


def register_agent_lookup(lookup: AgentLookup) -> None:
    """`lookup(organisation_id, slug)`: an active agent or None. Agents stand above tenancy and register at start."""
    _AGENTS[:] = [lookup]


def find_agent(*, organisation_id: uuid.UUID, slug: str) -> AgentIdentity:
    """Raises 404 `agent.not_found`."""
    found = _AGENTS[0](organisation_id, slug) if _AGENTS else None
    if found is None:
        raise not_found("agent")
    return found


def issue_personal_token(
    *,
    principal: Principal,
    user: User,
    name: str,
    expires_at: datetime,
    scopes: Collection[Permission] | None = None,
) -> tuple[Token, str]:
    """A token that acts as the person, at most with their own rights. For oneself, or by Remit's operator; asked for
    with a token, it ends no later than that one. Raises 403, also `token.narrowed`, and 422 `token.invalid`."""
    if principal.user_id != user.pk and principal.kind is not PrincipalKind.SYSTEM:
        raise forbidden(Permission.TOKEN_WRITE.value)
    with transaction.atomic():
        if not user.is_active or not _belongs(user.pk, principal.organisation_id):
            raise not_found("person")
        if principal.is_narrowed:
            raise narrowed()
        _check_scopes(principal, scopes)
        return _issue(principal, TokenKind.PERSON, name, expires_at, scopes=scopes, user_id=user.pk)


def issue_service_token(
    *, principal: Principal, name: str, expires_at: datetime, scopes: Collection[Permission] | None = None
) -> tuple[Token, str]:
    """A token that reads the whole organisation, or less; only who may read as much for the whole organisation issues
    one. Raises 403, 422 `token.service_reads` for a permission to change something, which it would never have."""
    principal.require(Permission.TOKEN_WRITE)
    asked = SERVICE_PERMISSIONS if scopes is None else frozenset(scopes)
    if beyond := sorted(asked - SERVICE_PERMISSIONS):
        raise invalid(
            "token.service_reads",
            "A service token only reads.",
            FieldError("/scopes", f"not for a service: {', '.join(beyond)}"),
        )
    _check_scopes(principal, asked)
    for permission in asked if principal.kind is not PrincipalKind.SYSTEM else ():
        principal.require(permission)
    return _issue(principal, TokenKind.SERVICE, name, expires_at, scopes=scopes)


def issue_agent_token(
    *, principal: Principal, agent: AgentIdentity, name: str, expires_at: datetime
) -> tuple[Token, str]:
    """A token for one agent, wherever it runs."""
    principal.require(Permission.TOKEN_WRITE, team_id=agent.team_id)
    return _issue(principal, TokenKind.AGENT, name, expires_at, team_id=agent.team_id, agent_id=agent.id)


def is_of_agent(*, token_id: uuid.UUID, agent_id: uuid.UUID) -> bool:
    """Whether it is one of the agent's own credentials, not a run's token. For callers that have judged access."""
    return Token.objects.filter(pk=token_id, agent_id=agent_id, kind=TokenKind.AGENT).exists()


def revoke_token(*, principal: Principal, token_id: uuid.UUID) -> None:
    """Dead before the next decision. One's own, or any of teams one may issue for; twice is no error.

    Raises 404, and 403 `token.narrowed` where a narrowed token would end another of its person's.
    """
    with transaction.atomic():
        token = _reachable(principal).filter(pk=token_id).first()
        if token is None:
            raise not_found("token")
        own = token.kind == TokenKind.PERSON and token.user_id == principal.user_id
        if own and token.pk != principal.token_id and principal.is_narrowed:
            raise narrowed()
        if tokens.revoke(id=token.pk):
            _tell("token.revoked", principal, token)
            if token.user_id:
                access_changed(token.user_id)


def end_all_of(user: User) -> int:
    """Every personal token of somebody, in all their organisations, each on record; how many that were. Inside the
    caller's transaction, which judged that they must not be used any more."""
    living = Token.objects.filter(user=user, kind=TokenKind.PERSON, revoked_at__isnull=True, expires_at__gt=now())
    ended = [token for token in living.order_by("pk") if tokens.revoke(id=token.pk)]
    for token in ended:
        _tell("token.revoked", system_principal(organisation_id=token.organisation_id), token)
    if ended:
        access_changed(user.pk)
    return len(ended)


def rotate_token(*, principal: Principal, token_id: uuid.UUID, overlap: timedelta) -> tuple[Token, str]:
    """A new token that may the same, for as long as the old one was made for, but asked for with a token no longer than
    that one; the old one dies after `overlap`.

    One's own personal token, but not with a narrowed one, which could go on for ever; or a service token by who may
    issue it. Raises 404, 403, 409 `token.dead`, 422 `token.overlap`.
    """
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        problem = FieldError("/overlap", f"at most {LONGEST_OVERLAP.days} days")
        raise invalid("token.overlap", "The old token can't go on that long.", problem)
    with transaction.atomic():
        # Roles before tokens, as a deactivation takes them.
        if principal.user_id is not None and not _belongs(principal.user_id, principal.organisation_id):
            raise not_found("token")
        old = _reachable(principal).select_for_update(of=("self",)).filter(pk=token_id).first()
        if old is None or old.kind not in (TokenKind.PERSON, TokenKind.SERVICE):
            raise not_found("token")
        if old.kind == TokenKind.PERSON and old.user_id != principal.user_id:
            raise forbidden(Permission.TOKEN_WRITE.value)  # it would act as somebody else
        if old.kind == TokenKind.PERSON and principal.is_narrowed:
            raise narrowed()
        moment = now()
        if old.revoked_at is not None or old.expires_at <= moment or old.replaced_by.exists():
            raise conflict("token.dead", "This token was replaced, revoked, or has expired.", "Issue a new one.")
        scopes = None if old.scopes is None else [Permission(item) for item in old.scopes if item in _KNOWN]
        if old.kind == TokenKind.SERVICE:
            principal.require(Permission.TOKEN_WRITE)
            for permission in SERVICE_PERMISSIONS if scopes is None else scopes:
                principal.require(permission)
        _check_scopes(principal, scopes)
        longest = min(LONGEST_LIFE, longest_life(principal.organisation_id))
        expires_at = moment + min(old.expires_at - old.created_at, longest)
        if principal.token_id is not None:
            expires_at = min(expires_at, Token.objects.get(pk=principal.token_id).expires_at)
        token, text = tokens.issue(
            kind=TokenKind(old.kind),
            organisation_id=old.organisation_id,
            name=old.name,
            expires_at=expires_at,
            scopes=scopes,
            team_id=old.team_id,
            user_id=old.user_id,
            created_by_id=principal.user_id,
            replaces_id=old.pk,
        )
        Token.objects.filter(pk=old.pk).update(expires_at=min(old.expires_at, moment + overlap))
        old.refresh_from_db(fields=["expires_at"])
        _tell("token.rotated", principal, token, old_ends_at=old.expires_at.isoformat(), replaces=str(old.pk))
    return token, text


def narrowed() -> RemitError:
    """For what a token with only some of its person's permissions must not touch."""
    return RemitError(
        "token.narrowed",
        "This token has only some of its person's permissions, and the person's own account is none of them.",
        403,
        remedies=("Use a token with all your permissions, or your profile page.",),
    )


def longest_life(organisation_id: uuid.UUID) -> timedelta:
    """How long a token issued now may live in the organisation."""
    return timedelta(days=Organisation.objects.values_list("token_days_max", flat=True).get(pk=organisation_id))


def may_hold(principal: Principal, kind: TokenKind) -> list[Permission]:
    """The scopes the principal could give a new token of the kind, in the order of the list of permissions."""
    if kind == TokenKind.SERVICE:
        return [item for item in Permission if item in SERVICE_PERMISSIONS and principal.has(item)]
    return [item for item in Permission if principal.has_anywhere(item)]


def listed(principal: Principal) -> QuerySet[Token]:
    """Personal and service tokens: all of the organisation for who may issue service tokens, else one's own."""
    rows = Token.objects.filter(
        organisation_id=principal.organisation_id, kind__in=[TokenKind.PERSON, TokenKind.SERVICE]
    )
    if not principal.has(Permission.TOKEN_WRITE) or not principal.has(Permission.MEMBER_WRITE):
        rows = rows.filter(user_id=principal.user_id) if principal.user_id else rows.none()
    return rows.select_related("user", "created_by").prefetch_related("replaced_by").order_by("-pk")


def _reachable(principal: Principal) -> QuerySet[Token]:
    """One's own, and those of teams one may issue for. Personal tokens of others only for who manages members."""
    reachable = Token.objects.restrict(principal, Permission.TOKEN_WRITE)
    if not principal.has(Permission.MEMBER_WRITE):
        reachable = reachable.exclude(kind=TokenKind.PERSON)
    own = Q(user_id=principal.user_id) if principal.user_id else Q(pk__in=[])
    return Token.objects.filter(Q(pk__in=reachable.values("pk")) | own, organisation_id=principal.organisation_id)


def _check_scopes(principal: Principal, scopes: Collection[Permission] | None) -> None:
    """A token can't make a token that may more than itself."""
    if principal.scopes is not None and (scopes is None or not frozenset(scopes) <= principal.scopes):
        raise forbidden(Permission.TOKEN_WRITE.value)


def _issue(
    principal: Principal,
    kind: TokenKind,
    name: str,
    expires_at: datetime,
    *,
    scopes: Collection[Permission] | None = None,
    team_id: uuid.UUID | None = None,
    user_id: uuid.UUID | None = None,
    agent_id: uuid.UUID | None = None,
) -> tuple[Token, str]:
    name = " ".join(name.split())
    errors = []
    if not 1 <= len(name) <= 120:
        errors.append(FieldError("/name", "1 to 120 characters"))
    longest = min(LONGEST_LIFE, longest_life(principal.organisation_id))
    if not now() < expires_at <= now() + longest:
        errors.append(FieldError("/expires_at", f"in the future, at most {longest.days} days away"))
    if kind != TokenKind.AGENT and _ends_before(principal.token_id, expires_at):
        errors.append(FieldError("/expires_at", "no later than the end of the token you ask with"))
    if scopes is not None and not scopes:
        errors.append(FieldError("/scopes", "at least one"))
    if errors:
        raise invalid("token.invalid", "The token can't be issued like this.", *errors)
    with transaction.atomic():
        token, text = tokens.issue(
            kind=kind,
            organisation_id=principal.organisation_id,
            name=name,
            expires_at=expires_at,
            scopes=scopes,
            team_id=team_id,
            user_id=user_id,
            agent_id=agent_id,
            created_by_id=principal.user_id,
        )
        _tell("token.issued", principal, token)
    return token, text


def _ends_before(token_id: uuid.UUID | None, moment: datetime) -> bool:
    return token_id is not None and Token.objects.filter(pk=token_id, expires_at__lt=moment).exists()


def _belongs(user_id: uuid.UUID, organisation_id: uuid.UUID) -> bool:
    """Until the transaction ends: a deactivation comes before the new token or ends it with the others."""
    held = Membership.objects.standing().filter(user_id=user_id, organisation_id=organisation_id)
    return bool(held.select_for_update(of=("self",), no_key=True).order_by("pk"))


def _tell(event: str, principal: Principal, token: Token, **more: str) -> None:
    trail.record(
        event=event,
        actor=principal,
        subject_type="token",
        subject_id=token.pk,
        subject_name=token.name,
        team_id=token.team_id,
        payload={
            "kind": token.kind,
            "hint": token.hint,
            "expires_at": token.expires_at.isoformat(),
            "scopes": sorted(token.scopes) if token.scopes is not None else None,
            **more,
        },
    )
