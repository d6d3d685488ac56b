"""What search finds besides pages: missions, agents, actions, questions, people and servers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from django.urls import reverse

from agents import selectors as agents
from agents.servers import selectors as servers
from controlplane.common.closeness import WITHIN, closeness
from controlplane.common.ids import parse_id
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.types import Permission, Principal
from frontend.templatetags import titles
from governance import selectors as governance

SHOWN: Final = 5
SHORTEST: Final = 2
LONGEST: Final = 100
REACH: Final = (
    "Names need two letters; ids are found whole. By their words, calls are looked for among the newest "
    f"{governance.ACTIONS_SEARCHED:,} and questions among the newest {governance.QUESTIONS_SEARCHED:,}."
)


@dataclass(frozen=True)
class Hit:
    """One thing that was found. `thing` is the resource it is of, `kind` the same in words. Calls are much alike: those
    say of which mission and when."""

    id: uuid.UUID
    label: str
    thing: str
    kind: str
    icon: str
    url: str
    mission: str = ""
    at: datetime | None = None


def find(principal: Principal, text: str) -> list[Hit]:
    """Only what the principal may see, what is named so before what only speaks of it; nothing for a text that is too
    short to mean something."""
    wanted = text.strip()[:LONGEST].replace("\x00", "")
    if len(wanted) < SHORTEST:
        return []
    return sorted(
        _hits(principal, wanted), key=lambda hit: closeness(hit.label, wanted) if hit.thing in _NAMED else WITHIN
    )


def _hits(principal: Principal, text: str) -> Iterator[Hit]:
    """A few of each kind; each kind costs one or two queries, and none where the viewer may see none of it."""
    key = parse_id(text.lower())
    if principal.has_anywhere(Permission.MISSION_VIEW):
        for mission in agents.find_missions(principal, text=text, key=key, limit=SHOWN):
            yield _hit("mission", mission.pk, mission.title, "mission", "mission")
    if principal.has_anywhere(Permission.ESCALATION_VIEW):
        questions = governance.find_escalations(principal, text=text, limit=SHOWN)
        of = agents.mission_titles(principal, [question.mission_id for question in questions])
        for question in questions:
            kind = f"question, {question.get_state_display().lower()}"
            hit = _hit("approval", question.pk, titles.in_words(question), kind, "ask")
            yield replace(hit, mission=of.get(question.mission_id, ""), at=question.opened_at)
    if principal.has_anywhere(Permission.AGENT_VIEW):
        for agent in agents.find_agents(principal, text=text, key=key, limit=SHOWN):
            yield _hit("agent", agent.pk, agent.name, "agent", "agent")
    if principal.has_anywhere(Permission.ACTION_VIEW):
        found = governance.find_actions(principal, text=text, limit=SHOWN)
        of = agents.mission_titles(principal, [action.mission_id for action in found])
        for action in found:
            hit = _hit("action", action.pk, titles.in_words(action), "call" if action.tool else "action", "zap")
            yield replace(hit, mission=of.get(action.mission_id, ""), at=action.created_at)
    if principal.has_anywhere(Permission.SERVER_VIEW):
        for server in servers.find_servers(principal, text=text, key=key, limit=SHOWN):
            yield _hit("server", server.pk, server.name, f"server, {server.slug}__", "server")
    if principal.has_anywhere(Permission.MEMBER_VIEW) and not key:
        for person in tenancy.find_people(principal, text=text, limit=SHOWN):
            yield Hit(person.pk, person.name, "members", "person", "user", _person_url(principal, person.pk))


_RESOURCES: Final = {
    "mission": "missions",
    "approval": "escalations",
    "agent": "agents",
    "action": "actions",
    "server": "mcp-servers",
}

_NAMED: Final = ("missions", "agents", "mcp-servers", "members")  # somebody gave these their names


def _hit(page: str, key: uuid.UUID, label: str, kind: str, icon: str) -> Hit:
    return Hit(key, label, _RESOURCES[page], kind, icon, reverse(page, args=[key]))


def _person_url(principal: Principal, user_id: uuid.UUID) -> str:
    """Their page for those who manage members, what they own for everybody else."""
    if principal.has_anywhere(Permission.MEMBER_WRITE):
        return reverse("member", args=[user_id])
    return f"{reverse('missions')}?owner={user_id}"
