"""Issuing and revoking tokens on someone's behalf, audited. How a token is made and recognised is in `tokens`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.db import transaction
from django.db.models import Q

from controlplane.common.clock import now
from controlplane.common.errors import FieldError, forbidden, invalid, not_found
from controlplane.tenancy import tokens, trail
from controlplane.tenancy.models import Membership, Token, TokenKind, User
from controlplane.tenancy.types import Permission, Principal, PrincipalKind

LONGEST_LIFE: Final = timedelta(days=366)


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
    """A token that acts as the person, at most with their own rights. For oneself, or by Remit's operator."""
    if principal.user_id != user.pk and principal.kind is not PrincipalKind.SYSTEM:
        raise forbidden(Permission.TOKEN_WRITE.value)
    if not user.is_active or not _belongs(user, principal.organisation_id):
        raise not_found("person")
    return _issue(principal, TokenKind.PERSON, name, expires_at, scopes=scopes, user_id=user.pk)


def issue_service_token(
    *, principal: Principal, name: str, expires_at: datetime, scopes: Collection[Permission] | None = None
) -> tuple[Token, str]:
    """A token that reads the whole organisation, so only who may do that for the whole organisation issues one."""
    principal.require(Permission.TOKEN_WRITE)
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
    """Dead before the next decision. One's own, or any of teams one may issue for. Raises 404; twice is no error."""
    with transaction.atomic():
        reachable = Token.objects.restrict(principal, Permission.TOKEN_WRITE).values("pk")
        own = Q(user_id=principal.user_id) if principal.user_id else Q(pk__in=[])
        token = Token.objects.filter(
            Q(pk__in=reachable) | own, organisation_id=principal.organisation_id, pk=token_id
        ).first()
        if token is None:
            raise not_found("token")
        if tokens.revoke(id=token.pk):
            _tell("token.revoked", principal, token)


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
    if not now() < expires_at <= now() + LONGEST_LIFE:
        errors.append(FieldError("/expires_at", f"in the future, at most {LONGEST_LIFE.days} days away"))
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
        )
        _tell("token.issued", principal, token)
    return token, text


def _belongs(user: User, organisation_id: uuid.UUID) -> bool:
    return Membership.objects.filter(user=user, organisation_id=organisation_id).exists()


def _tell(event: str, principal: Principal, token: Token) -> None:
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
        },
    )
