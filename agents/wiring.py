"""What agents register with the layers below at start: action kinds, sandbox owners and live topics."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from controlplane.common.errors import RemitError
from controlplane.common.ids import parse_id
from controlplane.tenancy.credentials import AgentIdentity
from controlplane.tenancy.tokens import KnownToken
from controlplane.tenancy.types import Permission, Principal
from governance.choices import Verdict
from governance.types import Finding


def register() -> None:
    from agents import stops
    from agents.costs import Book
    from agents.kinds.lift import Lift
    from agents.kinds.sign_off import SignOff, Widen
    from agents.kinds.tool_call import ToolCall
    from agents.models import Agent, Mission
    from agents.services.runs import PURPOSE, RunSandboxes
    from budgets.services import register_missions, register_objection, register_responsible
    from controlplane.clusters.services import register_owner
    from controlplane.live.services import register_topic
    from controlplane.tenancy.barring import register_bar
    from controlplane.tenancy.credentials import register_agent_lookup
    from governance.registry import register_kind

    for kind in (ToolCall(), SignOff(), Widen(), Lift()):
        register_kind(kind)
    register_owner(PURPOSE, RunSandboxes())
    register_agent_lookup(_agent_by_slug)
    register_responsible(_responsible_for)
    register_missions(Book())
    register_objection(_stop_of_budget)
    register_bar(_bar_of_agent)
    register_topic(
        "stop",
        _visible(lambda principal, key: stops.stops(principal).filter(pk=key).exists()),
    )
    register_topic(
        "mission",
        _visible(
            lambda principal, key: Mission.objects.restrict(principal, Permission.MISSION_VIEW).filter(pk=key).exists()
        ),
    )
    register_topic(
        "agent",
        _visible(
            lambda principal, key: Agent.objects.restrict(principal, Permission.AGENT_VIEW).filter(pk=key).exists()
        ),
    )
    register_topic(
        "organisation",
        _visible(
            lambda principal, key: key == principal.organisation_id and principal.has_anywhere(Permission.MISSION_VIEW)
        ),
    )


def _agent_by_slug(organisation_id: uuid.UUID, slug: str) -> AgentIdentity | None:
    from agents.choices import AgentState
    from agents.models import Agent

    agent = Agent.objects.filter(organisation_id=organisation_id, slug=slug, state=AgentState.ACTIVE).first()
    return AgentIdentity(id=agent.pk, team_id=agent.team_id, name=agent.name) if agent else None


def _bar_of_agent(token: KnownToken) -> None:
    """An agent's own credential opens nothing while its agent, team or organisation is stopped, or it is retired."""
    from agents import stops
    from agents.choices import AgentState
    from agents.models import Agent

    stop = stops.in_force(organisation_id=token.organisation_id, team_id=token.team_id, agent_id=token.agent_id)
    if stop is not None:
        raise RemitError(
            "agent.stopped",
            f"{stops.in_words(stop)}",
            401,
            remedies=("Stop working. A person has to lift the stop; the same credential works again then.",),
        )
    if Agent.objects.filter(state=AgentState.RETIRED, pk__in=[token.agent_id]).exists():
        raise RemitError(
            "agent.retired",
            "This agent is retired.",
            401,
            remedies=("Stop working. Reinstated by a person, it may use the same credential again.",),
        )


def _stop_of_budget(
    organisation_id: uuid.UUID, team_id: uuid.UUID | None, subject_type: str, subject_id: uuid.UUID | None
) -> Finding | None:
    from agents import stops
    from agents.models import Mission

    agent_id = subject_id if subject_type == "agent" else None
    if subject_type == "mission" and subject_id is not None:
        agent_id = Mission.objects.filter(pk=subject_id).values_list("agent_id", flat=True).first()
    stop = stops.in_force(organisation_id=organisation_id, team_id=team_id, agent_id=agent_id)
    if stop is None:
        return None
    return Finding(Verdict.DENY, "stop.in_force", stops.in_words(stop), ("Wait until a person lifts the stop.",))


def _responsible_for(subject_type: str, subject_id: uuid.UUID) -> list[uuid.UUID]:
    """The owner of a mission or an agent."""
    from agents.models import Agent, Mission

    rows = {"mission": Mission.objects.all(), "agent": Agent.objects.all()}.get(subject_type)
    return list(rows.filter(pk=subject_id).values_list("owner_id", flat=True)) if rows is not None else []


def _visible(check: Callable[[Principal, uuid.UUID], bool]) -> Callable[[Principal, str], bool]:
    def allowed(principal: Principal, identifier: str) -> bool:
        key = parse_id(identifier)
        return key is not None and check(principal, key)

    return allowed
