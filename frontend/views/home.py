"""Home: what needs me, what runs, what today cost, and a three-step start for a new organisation."""

from __future__ import annotations

from datetime import timedelta

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_POST

from agents import selectors
from agents.choices import MissionState, Outcome
from budgets import selectors as budgets
from controlplane.common.clock import now
from controlplane.common.ids import parse_id
from controlplane.tenancy.middleware import SESSION_ORGANISATION
from controlplane.tenancy.types import Permission
from frontend.pages import PersonRequest, page
from governance import selectors as governance

SHOWN = 8


@page
@require_GET
def home(request: PersonRequest) -> HttpResponse:
    principal = request.principal
    live = selectors.missions(principal, selectors.Filters(states=[MissionState.ACTIVE, MissionState.PAUSED]))
    running = selectors.mission_rows(principal, list(live[:SHOWN]))
    claimed = [row for row in running if row.mission.outcome == Outcome.CLAIMED]
    waiting = governance.escalations_waiting_for(principal, limit=SHOWN) if _may_decide(request) else []
    tree = budgets.tree(principal) if principal.has_anywhere(Permission.BUDGET_VIEW) else []
    context = {
        "waiting": waiting,
        "claimed": [row for row in claimed if principal.has(Permission.MISSION_OPERATE, team_id=row.mission.team_id)],
        "running": running,
        "budget": tree[0] if tree else None,
        "verdicts": governance.verdict_mix(principal, now() - timedelta(hours=24)),
        "is_new": not running and not selectors.missions(principal).exists(),
        "may_start": principal.has_anywhere(Permission.MISSION_WRITE),
        "may_decide": _may_decide(request),
    }
    return render(request, "home/page.html", context)


@require_POST
def switch_organisation(request: HttpRequest) -> HttpResponse:
    """Another of the person's organisations; the middleware ignores one they don't belong to."""
    chosen = parse_id(request.POST.get("organisation"))
    if chosen is not None:
        request.session[SESSION_ORGANISATION] = str(chosen)
    target = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(target, allowed_hosts={request.get_host()})
    return HttpResponseRedirect(target if safe else reverse("home"))


def _may_decide(request: PersonRequest) -> bool:
    return request.principal.has_anywhere(Permission.ESCALATION_DECIDE)
