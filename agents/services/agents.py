"""Registering agents and their versions, retiring them, noting that they live."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils.text import slugify

from agents.choices import AgentState, RunState, Runtime
from agents.models import Agent, AgentVersion, Run
from agents.services.teams import NO_LIMITS, budget_of_team
from budgets import services as budgets
from budgets.types import Level, Limits, WindowKind
from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.clusters.types import Resources
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, conflict, invalid, not_found
from controlplane.live.services import announce
from controlplane.tenancy.models import Team
from controlplane.tenancy.types import Permission, Principal

HEARTBEAT_EVERY = timedelta(seconds=10)
DEFAULT_RESOURCES = Resources()


def register_agent(
    *,
    actor: Principal,
    team_id: uuid.UUID,
    name: str,
    runtime: Runtime,
    description: str = "",
    capabilities: Sequence[str] = (),
    program: str = "",
    command: Sequence[str] = (),
    resources: Resources = DEFAULT_RESOURCES,
    wall_clock_seconds: int = 3600,
    version_label: str = "1",
    monthly_limits: Limits = NO_LIMITS,
) -> Agent:
    """A new agent with its first version and its budget account under the team's. Raises 409 `agent.name_taken`."""
    if not actor.is_person or actor.user_id is None:
        raise invalid("agent.owner", "An agent is owned by a person.")
    name = name.strip()
    if not name or not slugify(name):
        raise invalid(
            "agent.name", "An agent needs a name with letters or digits.", FieldError("/name", "1 to 120 characters")
        )
    if runtime is Runtime.MANAGED and not program and not command:
        raise invalid(
            "agent.command", "A managed agent needs a program to run.", FieldError("/command", "what to start")
        )
    team = Team.objects.restrict(actor, Permission.AGENT_WRITE).filter(pk=team_id).first()
    if team is None:
        raise not_found("team")
    try:
        with transaction.atomic():
            agent = Agent.objects.create(
                organisation_id=actor.organisation_id,
                team=team,
                owner_id=actor.user_id,
                name=name[:120],
                slug=slugify(name)[:60],
                description=description[:500],
                runtime=runtime,
                capabilities=list(capabilities),
            )
            _add_version(agent, 1, actor.user_id, version_label, program, command, resources, wall_clock_seconds)
            agent.account_id = budgets.open_account(
                actor=actor,
                organisation_id=actor.organisation_id,
                team_id=team.pk,
                parent_id=budget_of_team(team),
                level=Level.AGENT,
                name=agent.name,
                subject_type="agent",
                subject_id=agent.pk,
                limits=monthly_limits,
                window=WindowKind.MONTH,
            )
            agent.save(update_fields=["account_id"])
            record(
                event=Event.AGENT_REGISTERED,
                actor=actor,
                subject=subject_of(agent),
                payload={"runtime": runtime.value, "capabilities": list(capabilities), "program": program},
            )
            announce(f"organisation:{actor.organisation_id}", "agents")
    except IntegrityError as error:
        if "agent_slug_once" not in str(error):
            raise
        raise conflict("agent.name_taken", f"An agent is already called “{name}”.", "Choose another name.") from error
    return agent


def add_version(
    *,
    actor: Principal,
    agent_id: uuid.UUID,
    label: str,
    program: str = "",
    command: Sequence[str] = (),
    resources: Resources = DEFAULT_RESOURCES,
    wall_clock_seconds: int = 3600,
) -> AgentVersion:
    """Another version; runs started from now on use it, runs under way keep theirs."""
    with transaction.atomic():
        agent = Agent.objects.restrict(actor, Permission.AGENT_WRITE).select_for_update().filter(pk=agent_id).first()
        if agent is None or actor.user_id is None:
            raise not_found("agent")
        number = agent.current_version + 1
        version = _add_version(agent, number, actor.user_id, label, program, command, resources, wall_clock_seconds)
        Agent.objects.filter(pk=agent.pk).update(current_version=number)
        record(
            event=Event.AGENT_VERSION_ADDED,
            actor=actor,
            subject=subject_of(agent),
            payload={"version": number, "label": label},
        )
        announce(f"agent:{agent.pk}", "versions")
    return version


def retire_agent(*, actor: Principal, agent_id: uuid.UUID) -> Agent:
    """No new missions. Raises 409 `agent.busy` while one is not over."""
    from agents.choices import ENDED_MISSION_STATES

    with transaction.atomic():
        agent = Agent.objects.restrict(actor, Permission.AGENT_WRITE).select_for_update().filter(pk=agent_id).first()
        if agent is None:
            raise not_found("agent")
        if agent.missions.exclude(state__in=ENDED_MISSION_STATES).exists():
            raise conflict("agent.busy", "This agent still has missions.", "Stop or finish them first.")
        if Agent.objects.filter(pk=agent.pk, state=AgentState.ACTIVE).update(state=AgentState.RETIRED):
            record(event=Event.AGENT_RETIRED, actor=actor, subject=subject_of(agent))
            _announce_state(agent)
        agent.refresh_from_db()
    return agent


def reinstate_agent(*, actor: Principal, agent_id: uuid.UUID) -> Agent:
    """A retired agent takes missions again; its credentials that have not ended open again too."""
    with transaction.atomic():
        agent = Agent.objects.restrict(actor, Permission.AGENT_WRITE).select_for_update().filter(pk=agent_id).first()
        if agent is None:
            raise not_found("agent")
        if Agent.objects.filter(pk=agent.pk, state=AgentState.RETIRED).update(state=AgentState.ACTIVE):
            record(event=Event.AGENT_REINSTATED, actor=actor, subject=subject_of(agent))
            _announce_state(agent)
        agent.refresh_from_db()
    return agent


def _announce_state(agent: Agent) -> None:
    announce(f"agent:{agent.pk}", "state")
    announce(f"organisation:{agent.organisation_id}", "agents")


def note_heartbeat(*, principal: Principal) -> None:
    """An agent called: it lives. The first call of an external run turns it green. Cheap when called often."""
    moment = now()
    if principal.run_id is not None:
        first = Run.objects.filter(pk=principal.run_id, first_call_at__isnull=True).update(first_call_at=moment)
        if first:
            Run.objects.filter(pk=principal.run_id, state=RunState.PENDING).update(
                state=RunState.RUNNING, started_at=moment
            )
            announce(f"mission:{principal.mission_id}", "run")
    if principal.agent_id is None:
        return
    stale = Q(last_seen_at__isnull=True) | Q(last_seen_at__lt=moment - HEARTBEAT_EVERY)
    Agent.objects.filter(stale, pk=principal.agent_id).update(last_seen_at=moment)


def subject_of(agent: Agent) -> Subject:
    return Subject("agent", agent.pk, agent.name, agent.team_id)


def _add_version(
    agent: Agent,
    number: int,
    user_id: uuid.UUID,
    label: str,
    program: str,
    command: Sequence[str],
    resources: Resources,
    wall_clock_seconds: int,
) -> AgentVersion:
    return AgentVersion.objects.create(
        agent=agent,
        number=number,
        label=label[:40],
        program=program,
        command=list(command),
        resources=asdict(resources),
        wall_clock_seconds=wall_clock_seconds,
        created_by_id=user_id,
    )
