"""What the command palette finds besides pages: missions, agents and actions by name or id."""

from __future__ import annotations

from dataclasses import dataclass

from django.http import HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_GET

from agents import selectors as agents
from controlplane.common.ids import parse_id
from frontend.pages import PersonRequest, is_part, page
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
    hits = _hits(request, text) if len(text) >= SHORTEST else []
    template = "search/options.html" if is_part(request) else "search/page.html"
    return render(request, template, {"hits": hits, "text": text})


def _hits(request: PersonRequest, text: str) -> list[Hit]:
    principal, key = request.principal, parse_id(text.lower())
    missions = agents.missions(principal)
    found_missions = missions.filter(pk=key) if key else missions.filter(title__icontains=text)
    found_agents = agents.agents(principal).filter(pk=key) if key else agents.agents(principal, text=text)
    return [
        *(Hit(row.title, "mission", "mission", reverse("mission", args=[row.pk])) for row in found_missions[:SHOWN]),
        *(Hit(row.name, "agent", "agent", reverse("agent", args=[row.pk])) for row in found_agents[:SHOWN]),
        *(
            Hit(row.title, "action", "zap", reverse("action", args=[row.pk]))
            for row in governance.find_actions(principal, text=text, limit=SHOWN)
        ),
    ]
