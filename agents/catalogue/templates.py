"""The shipped templates, and starting a mission from one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from django.conf import settings

from agents.catalogue.bring_your_own import BRING_YOUR_OWN
from agents.catalogue.caretaker import CARETAKER
from agents.catalogue.readiness import readiness_of, samples_installing
from agents.catalogue.receivables import RECEIVABLES
from agents.catalogue.registered import agent_for
from agents.catalogue.types import Template
from agents.choices import AgentState, Importance
from agents.models import Agent, Mission
from agents.remits import MOST_BUDGET
from agents.services import Remit, draft_mission, register_agent
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, conflict, invalid, not_found
from controlplane.common.typed_amounts import NotAnAmount, typed_amount_up_to
from controlplane.tenancy.models import Team
from controlplane.tenancy.types import Permission, Principal

TEMPLATES: Mapping[str, Template] = {item.code: item for item in (RECEIVABLES, CARETAKER, BRING_YOUR_OWN)}


def template(code: str) -> Template:
    """Raises 422 `template.unknown`."""
    if code not in TEMPLATES:
        raise invalid(
            "template.unknown", "There is no such template.", FieldError("/template", f"one of: {', '.join(TEMPLATES)}")
        )
    return TEMPLATES[code]


def template_of(agent: Agent) -> Template | None:
    """The one for what it runs now: its shipped program, or one of its owner's. `agent` comes with its versions."""
    current = next((row for row in agent.versions.all() if row.number == agent.current_version), None)
    return next((item for item in TEMPLATES.values() if current and item.program == current.program), None)


def start_from_template(
    *,
    actor: Principal,
    team_id: uuid.UUID,
    code: str,
    values: Mapping[str, str],
    agent_id: uuid.UUID | None = None,
    to_reword: bool = False,
) -> Mission:
    """A drafted mission with its agent and files, ready to be submitted. `agent_id`: one that is registered already,
    instead of the template's own. `to_reword`: it is not submitted as it is, so one for an agent of one's own needs no
    server yet. Raises 422 naming every bad field, 404 for a team without the right to it, and 409
    when the organisation has not, or not yet, a server that it needs, or the team may not use it; for the agent as
    `agent_for`."""
    chosen = template(code)
    registered = agent_for(actor, chosen, team_id, agent_id) if agent_id else None
    if registered is not None and any(field.name == "agent" for field in chosen.fields):
        values = {**values, "agent": registered.name}
    remit, title, agent_name = _read_values(chosen, values)
    if not Team.objects.restrict(actor, Permission.MISSION_WRITE).filter(pk=team_id).exists():
        raise not_found("team")
    if not (to_reword and chosen.is_yours):
        require_ready(actor, chosen, team_id)
    agent = registered or _agent(actor, team_id, chosen, agent_name)
    mission = draft_mission(
        actor=actor,
        agent_id=agent.pk,
        title=title,
        remit=remit,
        template=chosen.code,
        settings={"values": dict(values), "variables": dict(chosen.variables)},
    )
    if chosen.files is not None:
        chosen.files(folder_of(mission.pk))
    return mission


def folder_of(mission_id: uuid.UUID) -> Path:
    """The mission's own files, which its servers work on. Agents never see it: they only reach it through governed
    calls."""
    return Path(settings.CONFIG.state_dir) / "missions" / str(mission_id)


def require_ready(actor: Principal, chosen: Template, team_id: uuid.UUID) -> None:
    """Raises 409 `template.servers_missing`, `template.installing` while they are on their way,
    `template.servers_not_for_team`, or `template.tools_not_read`."""
    here = readiness_of(actor, chosen, samples_installing(actor), team_id)
    if here.ready:
        return
    if not here.missing and here.not_for_team:
        raise conflict(
            "template.servers_not_for_team",
            f"This template needs servers that the chosen team may not use: {', '.join(here.not_for_team)}.",
            "Choose another team, or ask an administrator to let this one use them, on the Servers page.",
        )
    if not here.missing:
        raise conflict(
            "template.tools_not_read",
            f"This template needs servers whose tools could not be read yet: {', '.join(here.unread)}.",
            "Press “Read its tools” on the server's page, or ask someone who may.",
        )
    if here.installing is not None and not here.installing.failure:
        raise conflict(
            "template.installing",
            f"The samples are still being installed; this one waits for {', '.join(here.missing)}.",
            "Try again in a minute: this page says when it is ready.",
        )
    raise conflict(
        "template.servers_missing",
        f"This template needs servers that are not registered here: {', '.join(here.missing)}.",
        "Register them on the Servers page, or ask someone who may.",
    )


def remit_of(chosen: Template, values: Mapping[str, str]) -> Remit:
    """The remit these values would give, for the preview beside the form. Raises 422."""
    return _read_values(chosen, values)[0]


def _read_values(chosen: Template, values: Mapping[str, str]) -> tuple[Remit, str, str]:
    errors: list[FieldError] = []
    given = {field.name: (values.get(field.name) or field.default).strip() for field in chosen.fields}
    unknown = set(values) - set(given)
    if unknown:
        errors.append(FieldError("/values", f"unknown: {', '.join(sorted(unknown))[:120]}"))
    agent_name = given.get("agent", chosen.agent_name)
    title = given.get("title") or agent_name
    if not 1 <= len(title) <= 160:
        errors.append(FieldError("/title", "1 to 160 characters"))
    if not 1 <= len(agent_name) <= 120:
        errors.append(FieldError("/agent", "1 to 120 characters"))
    try:
        budget = typed_amount_up_to(given.get("budget", str(chosen.budget)), MOST_BUDGET)
    except NotAnAmount as error:
        budget = chosen.budget
        errors.append(FieldError("/budget", str(error)))
    hours = given.get("hours", "8")
    if not hours.isascii() or not hours.isdigit() or not 1 <= int(hours) <= 24 * 90:
        errors.append(FieldError("/hours", "a whole number of hours, 1 to 2,160"))
        hours = "8"
    importance = given.get("importance", Importance.NORMAL)
    if importance not in Importance.values:
        errors.append(FieldError("/importance", f"one of: {', '.join(Importance.values)}"))
        importance = Importance.NORMAL
    if errors:
        raise invalid("template.values", "Some fields can't be used as they are.", *errors)
    remit = Remit(
        goal=chosen.goal,
        criteria=list(chosen.criteria),
        grants=list(chosen.grants),
        budget_money=budget,
        budget_tokens=chosen.tokens,
        budget_steps=chosen.steps,
        deadline=now() + timedelta(hours=int(hours)),
        importance=Importance(importance),
    )
    return remit, title, agent_name


def _agent(actor: Principal, team_id: uuid.UUID, chosen: Template, name: str) -> Agent:
    """The team's agent of that name and runtime, registered on first use."""
    rows = Agent.objects.restrict(actor, Permission.MISSION_WRITE)
    found = rows.filter(team_id=team_id, name=name, runtime=chosen.runtime, state=AgentState.ACTIVE).first()
    return found or register_agent(
        actor=actor,
        team_id=team_id,
        name=name,
        runtime=chosen.runtime,
        description=chosen.sentence,
        capabilities=chosen.capabilities,
        program=chosen.program,
        wall_clock_seconds=chosen.wall_clock_seconds,
    )
