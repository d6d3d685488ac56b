"""What the command palette finds besides pages: missions, agents, actions, questions, people and servers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET

from agents import selectors as agents
from agents.servers import selectors as servers
from controlplane.common.ids import parse_id
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.types import Permission
from frontend.pages import PersonRequest, is_part, page
from frontend.templatetags import titles
from governance import selectors as governance

SHOWN = 5
SHORTEST = 2
LONGEST = 100


@dataclass(frozen=True)
class Hit:
    label: str
    kind: str
    icon: str
    url: str


@page
@require_GET
def search(request: PersonRequest) -> HttpResponse:
    """Options for the palette, or a page of them without script. Only what the viewer may see."""
    text = request.GET.get("q", "").strip()[:LONGEST].replace("\x00", "")
    hits = list(_hits(request, text)) if len(text) >= SHORTEST else []
    template = "search/options.html" if is_part(request) else "search/page.html"
    return render(request, template, {"hits": hits, "text": text})


def _hits(request: PersonRequest, text: str) -> Iterator[Hit]:
    """A few of each kind; each kind costs one or two queries, and none where the viewer may see none of it."""
    principal, key = request.principal, parse_id(text.lower())
    if principal.has_anywhere(Permission.MISSION_VIEW):
        missions = agents.missions(principal)
        for mission in (missions.filter(pk=key) if key else missions.filter(title__icontains=text))[:SHOWN]:
            yield Hit(mission.title, "mission", "mission", reverse("mission", args=[mission.pk]))
    if principal.has_anywhere(Permission.ESCALATION_VIEW):
        for question in governance.find_escalations(principal, text=text, limit=SHOWN):
            state = question.get_state_display().lower()
            yield Hit(titles.in_words(question), f"question, {state}", "ask", reverse("approval", args=[question.pk]))
    if principal.has_anywhere(Permission.AGENT_VIEW):
        for agent in agents.find_agents(principal, text=text, key=key, limit=SHOWN):
            yield Hit(agent.name, "agent", "agent", reverse("agent", args=[agent.pk]))
    if principal.has_anywhere(Permission.ACTION_VIEW):
        for action in governance.find_actions(principal, text=text, limit=SHOWN):
            yield Hit(titles.in_words(action), "action", "zap", reverse("action", args=[action.pk]))
    if principal.has_anywhere(Permission.SERVER_VIEW):
        for server in servers.find_servers(principal, text=text, key=key, limit=SHOWN):
            yield Hit(server.name, f"server, {server.slug}__", "server", reverse("server", args=[server.pk]))
    if principal.has_anywhere(Permission.MEMBER_VIEW) and not key:
        for person in tenancy.find_people(principal, text=text, limit=SHOWN):
            yield Hit(person.name, "person", "user", _person_url(request, person.pk))


def _person_url(request: PersonRequest, user_id: uuid.UUID) -> str:
    """Their page for those who manage members, what they own for everybody else."""
    if request.principal.has_anywhere(Permission.MEMBER_WRITE):
        return reverse("member", args=[user_id])
    return f"{reverse('missions')}?owner={user_id}"
