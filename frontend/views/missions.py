"""Missions: the list, starting one, watching one, and what people do to one."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from agents import selectors, services
from agents.choices import ENDED_MISSION_STATES, MissionState, Outcome, Runtime, StopScope
from agents.grants import parse_grants
from agents.models import Mission
from agents.timeline import timeline
from budgets import selectors as budgets
from budgets.types import Balance
from controlplane.clusters.selectors import log_of
from controlplane.common.cursors import page as cursor_page
from controlplane.tenancy.types import Permission
from frontend import shown_once
from frontend.asked import asked
from frontend.ceilings import tighter_than
from frontend.claims import claim_of
from frontend.connecting import connection_settings
from frontend.exports import csv_response, in_pages
from frontend.pages import PersonRequest, id_of, page
from frontend.remit_history import compared, version_rows
from frontend.resize_form import ResizeForm
from frontend.saved import saved_views
from frontend.submitting import submit
from frontend.undoing import undoable
from frontend.views.budgets import SHOWN, with_titles
from governance import selectors as governance

TABS = ("timeline", "remit", "budget", "output", "checklist", "runs")
_VIEWS = (
    ("All", ""),
    ("Under way", "?state=active,paused"),
    ("Waiting for a person", "?asking=1"),
    ("Outcome to accept", "?outcome=claimed"),
    ("Ended", "?state=succeeded,failed,stopped,expired"),
    ("Mine", "?mine=1"),
)


@dataclass(frozen=True)
class View:
    """A kept question to the list, one press away."""

    label: str
    query: str
    current: bool


@page
@require_GET
def listing(request: PersonRequest) -> HttpResponseBase:
    """All missions the viewer may see; filters live in the address."""
    filters = _filters(request)
    rows = selectors.missions(request.principal, filters)
    if request.GET.get("format") == "csv":
        return csv_response("missions", _CSV_HEADER, _csv_rows(request, rows))
    found = cursor_page(rows, cursor=request.GET.get("cursor"))
    context = {
        "rows": selectors.mission_rows(request.principal, found.items),
        "page": found,
        "filters": filters,
        "states": _state_choices(filters.states),
        "kept": [
            (name, request.GET[name]) for name in ("agent", "owner", "outcome", "asking") if request.GET.get(name)
        ],
        **saved_views(request, "missions"),
        "views": [View(label, query, request.GET.urlencode(safe=",") == query[1:]) for label, query in _VIEWS],
        "filtered": any(vars(filters).values()),
        "may_start": request.principal.has_anywhere(Permission.MISSION_WRITE),
    }
    return render(request, "missions/list.html", context)


@page
@never_cache
@require_GET
def detail(request: PersonRequest, mission_id: uuid.UUID, tab: str = "timeline") -> HttpResponse:
    mission = selectors.mission(request.principal, mission_id)
    part = request.GET.get("part", "")
    if tab not in TABS or part not in ("", *_PARTS) or (part in TABS and part != tab):
        raise Http404
    template = f"missions/parts/{part}.html" if part else "missions/detail.html"
    return render(request, template, context_of(request, mission, tab, part))


def context_of(request: PersonRequest, mission: Mission, tab: str, part: str) -> dict[str, Any]:
    """What missions/detail.html shows, or one part of it. An open page asks for parts all day: each reads only what it
    shows."""
    version = selectors.version_in_force(mission)
    context: dict[str, Any] = {
        "mission": mission,
        "version": version,
        "tab": tab,
        "part": part,
        "grants": parse_grants(version.grants),
        "run": next(iter(mission.runs.all()), None),
        "external": mission.agent.runtime == Runtime.EXTERNAL,
        "may_change": request.principal.has(Permission.MISSION_WRITE, team_id=mission.team_id)
        and mission.state not in ENDED_MISSION_STATES,
        "may_operate": request.principal.has(Permission.MISSION_OPERATE, team_id=mission.team_id),
        "done": sum(item.state != "open" for item in mission.checklist.all()),
        "token": shown_once.take(request, mission.pk) if tab == "timeline" and not part else "",
        "reject_url": reverse("mission-operate", args=[mission.pk, "reject"]),
        "replace_url": reverse("mission-operate", args=[mission.pk, "replace-token"]),
        "row": selectors.mission_rows(request.principal, [mission])[0] if part in ("", "head") else None,
    }
    if part in ("", tab):
        context |= _OF_TAB.get(tab, _nothing)(request, mission)
    if part in ("", "head", "spend"):
        balance = budgets.mission_spend(mission_ids=[mission.pk]).get(mission.pk)
        context["balance"] = balance
        context |= _asking_for_budget(request, mission, balance, may_operate=context["may_operate"])
    if part in ("", "spend") and mission.state not in ENDED_MISSION_STATES:
        meant = version.budget_money if balance is None else balance.left.money or Decimal(0)
        context["ceiling"] = tighter_than(mission, meant)
    if tab == "runs" and context["may_operate"] and context["run"] and context["run"].sandbox:
        context["resize_form"] = ResizeForm(context["run"].sandbox)
    if context["external"]:
        context |= connection_settings(settings.CONFIG.public_url, context["token"])
    return context


def _timeline(request: HttpRequest, mission: Any) -> dict[str, Any]:
    verdict, before = request.GET.get("verdict", ""), id_of(request.GET.get("before"))
    shown = timeline(request.principal, mission, verdict=verdict, before=before)  # type: ignore[attr-defined]
    return {"timeline": shown, "verdict": verdict, "before": before}


def _remit(request: HttpRequest, mission: Any) -> dict[str, Any]:
    principal = request.principal  # type: ignore[attr-defined]
    found = compared(principal, mission, before=request.GET.get("from"), after=request.GET.get("to"))
    return {"history": version_rows(principal, mission), "compared": found}


def _budget(request: HttpRequest, mission: Any) -> dict[str, Any]:
    if mission.account_id is None:  # never started: there is nothing to account for
        return {"lines": None}
    requests = asked(request.principal, mission, ("budget.topup",), limit=10)  # type: ignore[attr-defined]
    # What it cost is what people look for here; holding and starting a call cost nothing.
    show = "all" if request.GET.get("show") == "all" else "charged"
    lines = budgets.lines(
        request.principal,  # type: ignore[attr-defined]
        mission_id=mission.pk,
        kinds=SHOWN[show][1],
        cursor=request.GET.get("cursor"),
    )
    titled = with_titles(request, lines.items)  # type: ignore[arg-type]
    return {
        "lines": lines,
        "lines_with_titles": titled,
        "requests": requests,
        "may_see_questions": request.principal.has(  # type: ignore[attr-defined]
            Permission.ESCALATION_VIEW, team_id=mission.team_id
        ),
        "show": show,
        "shown": [(code, SHOWN[code][0]) for code in ("charged", "all")],
    }


def _asking_for_budget(
    request: PersonRequest, mission: Mission, balance: Balance | None, *, may_operate: bool
) -> dict[str, Any]:
    """Whether its last call found its own budget too small, and whether the viewer may ask for more."""
    under_way = mission.state in (MissionState.ACTIVE, MissionState.PAUSED) and mission.paused_by_id is None
    if balance is None or not under_way:
        return {"short_of_money": None, "may_ask": False}
    filters = governance.ActionFilters(mission_id=mission.pk, kind="tool.call")
    last = next(iter(governance.actions(principal=request.principal, filters=filters, limit=1).items), None)
    left = balance.left.money
    short = last is not None and last.reason_code == "budget.exhausted" and left is not None and last.price > left
    return {"short_of_money": last if short else None, "may_ask": may_operate}


def _output(request: HttpRequest, mission: Any) -> dict[str, Any]:
    runs = [run for run in mission.runs.all() if run.sandbox_id]
    chosen = next((run for run in runs if str(run.attempt) == request.GET.get("attempt")), runs[0] if runs else None)
    return {"output_runs": runs, "output_run": chosen, "log": log_of(chosen.sandbox) if chosen else None}


def _checklist(request: HttpRequest, mission: Any) -> dict[str, Any]:  # noqa: ARG001
    return {"claim": claim_of(mission.claim)}


def _nothing(request: HttpRequest, mission: Any) -> dict[str, Any]:  # noqa: ARG001
    return {}


_OF_TAB: dict[str, Callable[[HttpRequest, Any], dict[str, Any]]] = {
    "timeline": _timeline,
    "remit": _remit,
    "budget": _budget,
    "output": _output,
    "checklist": _checklist,
}
_PARTS = {
    "head",
    "stop",
    "timeline",
    "spend",
    "checklist",
    "runs",
    "output",
    "connected",
    "token",
    "checks",
    "checks_count",
    "runs_count",
}


@page
@require_POST
def operate(request: PersonRequest, mission_id: uuid.UUID, what: str) -> HttpResponse:
    """Pause, resume, stop, start again, accept, reject: one service each, then back to the mission."""
    reason = request.POST.get("reason", "")
    actor = request.principal
    match what:
        case "submit":
            submit(request, mission_id)
        case "pause":
            services.pause_mission(actor=actor, mission_id=mission_id, reason=reason)
            resume = reverse("mission-operate", args=[mission_id, "resume"])
            undoable(request, "Paused. Its calls are refused until somebody resumes it.", url=resume)
        case "resume":
            services.resume_mission(actor=actor, mission_id=mission_id)
            messages.success(request, "Resumed.")
        case "stop":
            made = services.stop(actor=actor, scope=StopScope.MISSION, scope_id=mission_id, reason=reason)
            return redirect("stop", stop_id=made.pk)
        case "restart":
            services.restart_run(actor=actor, mission_id=mission_id)
            messages.success(request, "Another attempt starts.")
        case "accept":
            services.accept_outcome(actor=actor, mission_id=mission_id, claim=request.POST.get("claim", ""))
            messages.success(request, "Outcome accepted.")
        case "reject":
            claim = request.POST.get("claim", "")
            services.reject_outcome(actor=actor, mission_id=mission_id, claim=claim, reason=reason)
            messages.success(request, "Outcome rejected.")
        case "token" if selectors.has_called(actor, mission_id):
            messages.info(request, "Your agent has called with its token meanwhile. Replace it only if it is lost.")
        case "token" | "replace-token":
            text = services.issue_run_token(actor=actor, mission_id=mission_id)
            shown_once.keep(request, mission_id, text)
        case _:
            raise Http404
    return redirect("mission", mission_id=mission_id)


_CSV_HEADER = (
    "id",
    "title",
    "agent",
    "owner",
    "team",
    "state",
    "outcome",
    "currency",
    "spent",
    "held",
    "limit",
    "created_at",
)


def _csv_rows(request: PersonRequest, rows: Any) -> Any:
    for row in in_pages(rows, beside=lambda items: selectors.mission_rows(request.principal, items)):
        mission, balance = row.mission, row.balance
        yield (
            mission.pk,
            mission.title,
            mission.agent.name,
            mission.owner.name,
            mission.team.name,
            mission.state,
            mission.outcome,
            balance.currency if balance else "",
            balance.spent.money if balance else "",
            balance.held.money if balance else "",
            balance.limits.money if balance else "",
            mission.created_at.isoformat(),
        )


def _state_choices(chosen: Sequence[str]) -> list[tuple[str, str]]:
    """Those of the box; several at once, as the views choose them, are one of its lines too."""
    labels = dict(MissionState.choices)
    together = [(",".join(chosen), ", ".join(labels[state] for state in chosen))] if len(chosen) > 1 else []
    return [*together, *MissionState.choices]


def _filters(request: PersonRequest) -> selectors.Filters:
    named = ",".join(request.GET.getlist("state")).split(",")
    states = [state for state in MissionState.values if state in named]
    mine = request.principal.user_id if request.GET.get("mine") else None
    return selectors.Filters(
        states=states,
        agent_id=id_of(request.GET.get("agent")),
        owner_id=mine or id_of(request.GET.get("owner")),
        text=request.GET.get("q", "").strip()[:100],
        outcome=outcome if (outcome := request.GET.get("outcome", "")) in Outcome.values else "",
        asking=bool(request.GET.get("asking")),
    )
