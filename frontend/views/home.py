"""Home: what needs me, what runs, what today cost, and a three-step start for a new organisation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_POST

from agents import selectors
from agents.catalogue import TEMPLATES, readiness_of, samples_installing
from agents.choices import MissionState, Outcome
from agents.timeline import arguments_in_words
from budgets import selectors as budgets
from controlplane.common.clock import now
from controlplane.common.ids import parse_id
from controlplane.tenancy.middleware import go_to_organisation
from controlplane.tenancy.selectors import teams_with, today_of
from controlplane.tenancy.types import Permission
from frontend.pages import PersonRequest, page
from governance import selectors as governance
from governance.models import Escalation

SHOWN = 8
SPEND_DAYS = 14
_NEW_UP_TO = 3  # with more missions than this nobody needs the first steps any more


@dataclass(frozen=True)
class Waiting:
    """A question on the home page. `whole`: its arguments are all in `facts`, so that it may be answered here."""

    question: Escalation
    facts: str
    whole: bool


@dataclass(frozen=True)
class Steps:
    """The first three steps of an organisation, and which of them are done."""

    started: bool
    decided: bool


@page
@require_GET
def home(request: PersonRequest) -> HttpResponse:
    principal = request.principal
    live = selectors.missions(principal, selectors.Filters(states=[MissionState.ACTIVE, MissionState.PAUSED]))
    running = selectors.mission_rows(principal, list(live[:SHOWN]))
    claimed = [
        row
        for row in running
        if row.mission.outcome == Outcome.CLAIMED
        and principal.has(Permission.MISSION_OPERATE, team_id=row.mission.team_id)
    ]
    installing = samples_installing(principal)
    waiting = governance.escalations_waiting_for(principal, limit=SHOWN) if _may_decide(request) else []
    context = {
        "waiting": [_waiting(question) for question in waiting],
        "missions": selectors.missions_of(principal, waiting),
        "waiting_number": (governance.count_waiting_for(principal=principal) if waiting else 0) + len(claimed),
        "claimed": claimed,
        "running": running,
        "running_number": live.count(),
        "verdicts": governance.verdict_mix(principal, now() - timedelta(hours=24)),
        "installing": installing,
        "steps": _steps(request),
        "sample_ready": readiness_of(principal, TEMPLATES["receivables"], installing).ready,
        "may_start": principal.has_anywhere(Permission.MISSION_WRITE),
        "may_decide": _may_decide(request),
        "teams": teams_with(principal, Permission.MISSION_OPERATE),
        "may_stop_all": principal.has(Permission.MISSION_OPERATE),
        **_spend(request),
    }
    return render(request, "home/page.html", context)


@require_POST
def switch_organisation(request: HttpRequest) -> HttpResponse:
    """Another of the person's organisations; the middleware leads back from one they don't belong to."""
    chosen = parse_id(request.POST.get("organisation"))
    if chosen is not None:
        go_to_organisation(request, chosen)
    target = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(target, allowed_hosts={request.get_host()})
    return HttpResponseRedirect(target if safe else reverse("home"))


def _may_decide(request: PersonRequest) -> bool:
    return request.principal.has_anywhere(Permission.ESCALATION_DECIDE)


def _waiting(question: Escalation) -> Waiting:
    facts, whole = arguments_in_words(question.action)
    return Waiting(question, facts, whole and question.kind == "tool.call" and question.needed == 1)


def _steps(request: PersonRequest) -> Steps | None:
    """None once they are done, and for people who could not take them."""
    principal = request.principal
    if not principal.has_anywhere(Permission.MISSION_WRITE):
        return None
    missions = selectors.missions(principal)[: _NEW_UP_TO + 1].count()
    decided = bool(governance.decided_escalations(principal, limit=1))
    return None if decided or missions > _NEW_UP_TO else Steps(started=missions > 0, decided=decided)


def _spend(request: PersonRequest) -> dict[str, object]:
    """The widest budget the viewer sees: its window, today, and the last two weeks day by day."""
    principal = request.principal
    widest = budgets.widest(principal) if principal.has_anywhere(Permission.BUDGET_VIEW) else None
    if widest is None:
        return {"budget": None}
    charged = {
        day.day: day.spent.money
        for day in budgets.spend_per_day(principal, account_id=widest.account_id, days=SPEND_DAYS)
    }
    today = today_of(principal)
    days = [charged.get(today - timedelta(days=back), Decimal(0)) for back in range(SPEND_DAYS - 1, -1, -1)]
    return {"budget": widest, "today": days[-1], "days": days, "spend_days": SPEND_DAYS}
