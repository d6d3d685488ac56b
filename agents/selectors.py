"""Reads of agents, missions, runs and servers. Every one starts from a permission queryset."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db.models import Count, Exists, F, OuterRef, Prefetch, Q, QuerySet, Subquery, prefetch_related_objects

from agents.choices import ENDED_MISSION_STATES, ENDED_RUN_STATES, CheckState, MissionState
from agents.grants import parse_grants
from agents.models import Agent, AgentVersion, ChecklistItem, McpServer, McpTool, Mission, MissionVersion, Run
from agents.types import MissionRow
from agents.waiting import NOBODY_KNOWN, waited_for
from budgets import selectors as budgets
from budgets.types import Balance
from controlplane.common.closeness import by_closeness
from controlplane.common.errors import not_found
from controlplane.common.written_amounts import written_amount
from controlplane.tenancy.types import Permission, Principal, PrincipalKind
from governance.choices import EscalationState
from governance.models import Action, Escalation


@dataclass(frozen=True)
class Filters:
    """What people narrow mission lists by; empty means everything."""

    states: Sequence[str] = ()
    agent_id: uuid.UUID | None = None
    team_id: uuid.UUID | None = None
    owner_id: uuid.UUID | None = None
    text: str = ""
    outcome: str = ""
    asking: bool = False  # only those with an open question to a person


def missions(principal: Principal | None, filters: Filters = Filters()) -> QuerySet[Mission]:
    """Newest first, with agent, owner and team; a list of them costs one query."""
    rows = Mission.objects.restrict(principal, Permission.MISSION_VIEW).select_related("agent", "owner", "team")
    if filters.states:
        rows = rows.filter(state__in=filters.states)
    if filters.agent_id:
        rows = rows.filter(agent_id=filters.agent_id)
    if filters.team_id:
        rows = rows.filter(team_id=filters.team_id)
    if filters.owner_id:
        rows = rows.filter(owner_id=filters.owner_id)
    if filters.text:
        rows = rows.filter(Q(title__icontains=filters.text) | Q(agent__name__icontains=filters.text))
    if filters.outcome:
        rows = rows.filter(outcome=filters.outcome)
    if filters.asking:
        rows = rows.filter(Exists(_open_questions().filter(mission_id=OuterRef("pk"))))
    return rows.order_by("-id")


def find_missions(
    principal: Principal | None, *, text: str, key: uuid.UUID | None = None, limit: int = 5
) -> list[Mission]:
    """By id or title, without what lists show beside each."""
    rows = Mission.objects.restrict(principal, Permission.MISSION_VIEW)
    wanted = Q(pk=key) if key else Q(title__icontains=text)
    return list(rows.filter(wanted).order_by(by_closeness(text, field="title"), "-id")[:limit])


def mission_rows(principal: Principal, page: Sequence[Mission]) -> list[MissionRow]:
    """What a list shows beside each mission: goal, budget, last action, open questions and whom they wait for. The
    same few queries whatever the length."""
    ids = [mission.pk for mission in page]
    balances = budgets.mission_spend(mission_ids=ids)
    in_force = MissionVersion.objects.filter(mission_id__in=ids, number=F("mission__version"))
    goals = dict(in_force.values_list("mission_id", "goal"))
    newest = Action.objects.filter(mission_id=OuterRef("pk")).order_by("-id").values("pk")[:1]
    newest_ids = Mission.objects.filter(pk__in=ids).annotate(newest=Subquery(newest)).values_list("newest", flat=True)
    last = {
        action.mission_id: action
        for action in Action.objects.restrict(principal, Permission.ACTION_VIEW).filter(pk__in=list(newest_ids))
    }
    waiting = dict(
        _open_questions().filter(mission_id__in=ids).order_by().values_list("mission_id").annotate(Count("pk"))
    )
    oldest = _open_questions().filter(mission_id__in=list(waiting)).order_by("mission_id", "opened_at")
    questions = oldest.distinct("mission_id").prefetch_related("votes") if waiting else ()
    first = {question.mission_id: question for question in questions}
    names = waited_for(principal, first.values())
    prefetch_related_objects(page, "runs")  # the page of one mission has them already
    return [
        MissionRow(
            mission=mission,
            goal=goals.get(mission.pk, ""),
            balance=balances.get(mission.pk),
            last_action=last.get(mission.pk),
            run=max(mission.runs.all(), key=lambda run: run.attempt, default=None),
            waiting=waiting.get(mission.pk, 0),
            question=first.get(mission.pk),
            waits_for=names.get(first[mission.pk].pk, NOBODY_KNOWN) if mission.pk in first else "",
        )
        for mission in page
    ]


def _open_questions() -> QuerySet[Escalation]:
    """Of missions that the reader was already found to see."""
    return Escalation.objects.filter(state=EscalationState.OPEN).select_related("action")


def mission(principal: Principal | None, mission_id: uuid.UUID) -> Mission:
    """One mission with everything its page shows of itself. Raises 404."""
    rows = Mission.objects.restrict(principal, Permission.MISSION_VIEW).select_related(
        "agent", "owner", "team", "organisation"
    )
    found = (
        rows.prefetch_related(
            Prefetch(
                "versions", MissionVersion.objects.select_related("created_by", "signed_off_by").order_by("-number")
            ),
            Prefetch("checklist", ChecklistItem.objects.order_by("position")),
            Prefetch("runs", Run.objects.select_related("sandbox", "agent_version").order_by("-attempt")),
        )
        .filter(pk=mission_id)
        .first()
    )
    if found is None:
        raise not_found("mission")
    return found


def missions_of(principal: Principal, questions: Iterable[Escalation]) -> dict[uuid.UUID, Mission]:
    """Those that the questions are about and the principal may see, with their agents. One query, none without any."""
    wanted = {row.mission_id for row in questions if row.mission_id is not None}
    if not wanted:
        return {}
    return Mission.objects.restrict(principal, Permission.MISSION_VIEW).select_related("agent").in_bulk(wanted)


def mission_titles(principal: Principal, ids: Iterable[uuid.UUID | None]) -> dict[uuid.UUID | None, str]:
    """Of those that the principal may see. One query, none without ids."""
    wanted = {key for key in ids if key is not None}
    if not wanted:
        return {}
    rows = Mission.objects.restrict(principal, Permission.MISSION_VIEW).filter(pk__in=wanted)
    return dict(rows.values_list("pk", "title"))


def mission_titles_and_agents(
    principal: Principal, ids: Iterable[uuid.UUID | None]
) -> dict[uuid.UUID | None, tuple[str, str]]:
    """As `mission_titles`, each with the name of its agent."""
    wanted = {key for key in ids if key is not None}
    if not wanted:
        return {}
    rows = Mission.objects.restrict(principal, Permission.MISSION_VIEW).filter(pk__in=wanted)
    return {pk: (title, agent) for pk, title, agent in rows.values_list("pk", "title", "agent__name")}


def has_called(principal: Principal | None, mission_id: uuid.UUID) -> bool:
    """Whether the attempt of an agent elsewhere that is open has made its first call."""
    rows = Run.objects.restrict(principal, Permission.MISSION_VIEW).filter(mission_id=mission_id, ended_at=None)
    return rows.filter(first_call_at__isnull=False).exists()


def version_in_force(mission: Mission) -> MissionVersion:
    """From the prefetched versions of `mission`."""
    return next(version for version in mission.versions.all() if version.number == mission.version)


def agents(principal: Principal | None, *, text: str = "", state: str = "") -> QuerySet[Agent]:
    rows = Agent.objects.restrict(principal, Permission.AGENT_VIEW).select_related("owner", "team")
    rows = rows.annotate(
        live_missions=Count("missions", filter=Q(missions__state__in=[MissionState.ACTIVE, MissionState.PAUSED])),
        ended_missions=Count("missions", filter=Q(missions__state__in=ENDED_MISSION_STATES)),
        accepted_missions=Count("missions", filter=Q(missions__outcome="accepted")),
    )
    if text:
        rows = rows.filter(Q(name__icontains=text) | Q(description__icontains=text))
    if state:
        rows = rows.filter(state=state)
    return rows.order_by("name")


def agent_names(principal: Principal | None) -> list[tuple[uuid.UUID, str]]:
    """For a list of choices, by name."""
    rows = Agent.objects.restrict(principal, Permission.AGENT_VIEW)
    return list(rows.order_by("name").values_list("pk", "name"))


def find_agents(principal: Principal | None, *, text: str, key: uuid.UUID | None = None, limit: int = 5) -> list[Agent]:
    """By id, name or description, without what lists count beside each."""
    rows = Agent.objects.restrict(principal, Permission.AGENT_VIEW)
    wanted = Q(pk=key) if key else Q(name__icontains=text) | Q(description__icontains=text)
    return list(rows.filter(wanted).order_by(by_closeness(text), "name")[:limit])


def agent(principal: Principal | None, agent_id: uuid.UUID) -> Agent:
    found = agents(principal).prefetch_related("versions").filter(pk=agent_id).first()
    if found is None:
        raise not_found("agent")
    return found


def runs(
    principal: Principal | None,
    mission_id: uuid.UUID | None = None,
    *,
    agent_id: uuid.UUID | None = None,
    state: str | None = None,
) -> QuerySet[Run]:
    rows = Run.objects.restrict(principal, Permission.MISSION_VIEW).select_related(
        "sandbox", "agent_version", "mission"
    )
    wanted = {"mission_id": mission_id, "mission__agent_id": agent_id, "state": state}
    return rows.filter(**{name: value for name, value in wanted.items() if value}).order_by("-id")


def run(principal: Principal | None, run_id: uuid.UUID) -> Run:
    """Raises 404."""
    found = runs(principal).filter(pk=run_id).first()
    if found is None:
        raise not_found("run")
    return found


def agent_versions(principal: Principal | None, agent_id: uuid.UUID | None = None) -> QuerySet[AgentVersion]:
    rows = AgentVersion.objects.restrict(principal, Permission.AGENT_VIEW).select_related("created_by")
    return (rows.filter(agent_id=agent_id) if agent_id else rows).order_by("-id")


def agent_version(principal: Principal | None, version_id: uuid.UUID) -> AgentVersion:
    """Raises 404."""
    found = agent_versions(principal).filter(pk=version_id).first()
    if found is None:
        raise not_found("version")
    return found


def run_ids_of(principal: Principal | None, agent_id: uuid.UUID) -> QuerySet[Run, uuid.UUID]:
    """Under which ids an agent acted: its attempts."""
    rows = Run.objects.restrict(principal, Permission.MISSION_VIEW).filter(mission__agent_id=agent_id)
    return rows.values_list("pk", flat=True)


def servers(principal: Principal | None) -> QuerySet[McpServer]:
    rows = McpServer.objects.restrict(principal, Permission.SERVER_VIEW)
    return rows.prefetch_related(Prefetch("tools", McpTool.objects.order_by("name"))).order_by("name")


def acting(principal: Principal) -> Principal:
    """An agent's own credential acts for its one attempt under way, and in the agent's name, as that attempt's token
    does; without one, and with several, for none. One that is paused counts where none is active: its agent is told so.
    Others are what they are."""
    if principal.kind is not PrincipalKind.AGENT or principal.agent_id is None:
        return principal
    rows = Run.objects.filter(
        mission__agent_id=principal.agent_id,
        mission__organisation_id=principal.organisation_id,
        mission__state__in=[MissionState.ACTIVE, MissionState.PAUSED],
    ).exclude(state__in=ENDED_RUN_STATES)
    found = rows.order_by("mission__state").values_list("mission__state", "mission_id", "pk", "mission__agent__name")
    live = list(found[:2])  # “active” comes before “paused”
    if not live or (len(live) == 2 and live[1][0] == live[0][0]):
        return principal
    _, mission_id, run_id, name = live[0]
    return replace(principal, mission_id=mission_id, run_id=run_id, name=name)


def remit_of_run(*, principal: Principal) -> dict[str, Any]:
    """What an agent may know of its own mission: `remit__mission`. Raises 404 for principals without one."""
    if principal.mission_id is None:
        raise not_found("mission")
    own = mission(principal, principal.mission_id)
    version = version_in_force(own)
    balance = budgets.mission_spend(mission_ids=[own.pk]).get(own.pk)
    return {
        "id": str(own.pk),
        "title": own.title,
        "goal": version.goal,
        "state": own.state,
        "state_reason": own.state_reason,
        "outcome": own.outcome,
        "version": version.number,
        "importance": version.importance,
        "deadline": version.deadline.isoformat(),
        "criteria": [
            {"position": item.position, "text": item.text, "state": item.state, "done": item.state != CheckState.OPEN}
            for item in own.checklist.all()
        ],
        "grants": [
            {"tool": grant.tool, "effect": grant.effect, "in_words": grant.in_words()}
            for grant in parse_grants(version.grants)
        ],
        "budget": _budget_left(balance),
    }


def _budget_left(balance: Balance | None) -> dict[str, Any] | None:
    if balance is None:
        return None
    money = balance.left.money
    return {
        "currency": balance.currency,
        "money_left": None if money is None else written_amount(money),
        "tokens_left": balance.left.tokens,
        "steps_left": balance.left.steps,
    }


def since_heartbeat(agent: Agent, moment: datetime) -> float | None:
    """Seconds since the agent was last heard of; None when never."""
    return None if agent.last_seen_at is None else (moment - agent.last_seen_at).total_seconds()
