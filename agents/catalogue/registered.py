"""Registered agents that a template's mission can be given to: those that run what it is for."""

from __future__ import annotations

import uuid

from django.db.models import Exists, OuterRef, QuerySet

from agents.catalogue.types import Template
from agents.choices import AgentState
from agents.models import Agent, AgentVersion
from controlplane.common.errors import invalid, not_found
from controlplane.tenancy.types import Permission, Principal


def agents_for(actor: Principal, chosen: Template, team_id: uuid.UUID) -> QuerySet[Agent]:
    """The team's active ones that run the template's program, or one of their owner's where it has none. By name."""
    runs = AgentVersion.objects.filter(agent=OuterRef("pk"), number=OuterRef("current_version"), program=chosen.program)
    rows = Agent.objects.restrict(actor, Permission.MISSION_WRITE).filter(team_id=team_id, state=AgentState.ACTIVE)
    return rows.filter(Exists(runs)).order_by("name")


def startable_agent(actor: Principal, agent_id: uuid.UUID) -> Agent:
    """An agent that one may give missions, with its versions. Raises 404, 422 `agent.retired`."""
    rows = Agent.objects.restrict(actor, Permission.MISSION_WRITE).prefetch_related("versions")
    agent = rows.filter(pk=agent_id).first()
    if agent is None:
        raise not_found("agent")
    if agent.state != AgentState.ACTIVE:
        raise invalid(
            "agent.retired",
            f"{agent.name} is retired and takes no new missions.",
            remedies=("Bring it back on its page, or choose another agent.",),
        )
    return agent


def agent_for(actor: Principal, chosen: Template, team_id: uuid.UUID, agent_id: uuid.UUID) -> Agent:
    """The agent that was chosen for this mission. Raises as `startable_agent`, and 422 `template.agent`."""
    agent = startable_agent(actor, agent_id)
    if not agents_for(actor, chosen, team_id).filter(pk=agent.pk).exists():
        raise invalid(
            "template.agent",
            f"{agent.name} is of another team, or runs something else than this mission is for.",
            remedies=("Choose its team, or another agent.",),
        )
    return agent
