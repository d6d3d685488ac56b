"""Credentials of agents that run elsewhere: issued, shown once, revoked. Several may be valid at a time, so that one
takes over from another without a gap."""

from __future__ import annotations

import uuid
from datetime import datetime

from agents.choices import AgentState
from agents.models import Agent
from controlplane.common.errors import conflict, not_found
from controlplane.live.services import announce
from controlplane.tenancy import credentials
from controlplane.tenancy.credentials import AgentIdentity
from controlplane.tenancy.models import Token
from controlplane.tenancy.types import Permission, Principal


def issue_credential(*, actor: Principal, agent_id: uuid.UUID, name: str, expires_at: datetime) -> tuple[Token, str]:
    """A new credential and its only plain form. The others stay valid. Raises 404, 409 `agent.retired`, 422."""
    agent = _agent(actor, agent_id)
    if agent.state != AgentState.ACTIVE:
        raise conflict("agent.retired", "This agent is retired, so a credential would open nothing.")
    issued = credentials.issue_agent_token(
        principal=actor, agent=AgentIdentity(agent.pk, agent.team_id, agent.name), name=name, expires_at=expires_at
    )
    announce(f"agent:{agent.pk}", "credentials")
    return issued


def revoke_credential(*, actor: Principal, agent_id: uuid.UUID, token_id: uuid.UUID) -> None:
    """Dead before its next call. Raises 404, also for what is not a credential of this agent; twice is no error."""
    agent = _agent(actor, agent_id)
    if not credentials.is_of_agent(token_id=token_id, agent_id=agent.pk):
        raise not_found("credential")
    credentials.revoke_token(principal=actor, token_id=token_id)
    announce(f"agent:{agent.pk}", "credentials")


def _agent(actor: Principal, agent_id: uuid.UUID) -> Agent:
    agent = Agent.objects.restrict(actor, Permission.TOKEN_WRITE).filter(pk=agent_id).first()
    if agent is None:
        raise not_found("agent")
    return agent
