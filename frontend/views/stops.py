"""Stops: asking once with numbers, the proofs of one while they come in, the list, and lifting."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from agents import services, stop_proofs, stops
from agents.choices import StopScope
from agents.models import Stop
from agents.stop_proofs import Rung
from controlplane.common.clock import now
from controlplane.common.cursors import page as cursor_page
from controlplane.common.errors import RemitError, not_found
from controlplane.tenancy.types import Permission
from frontend.exports import csv_response, in_pages
from frontend.pages import PersonRequest, id_of, is_part, page, require_anywhere
from governance.types import Judgement

DIALOG = "stop-dialog"
SHOWN = 20
_CSV_HEADER = (
    *("id", "stopped_at", "scope", "what", "reason", "by", "sandboxes_ended", "proven_after_seconds"),
    *("lifted_at", "lifted_by"),
)
PATIENCE_SECONDS = 15  # a rung that holds back longer than this is said to


@dataclass(frozen=True)
class Proof:
    """A rung as it is drawn."""

    rung: Rung
    tone: str
    said: str


@page
@require_GET
def listing(request: PersonRequest) -> HttpResponseBase:
    require_anywhere(request.principal, Permission.MISSION_VIEW, "Stops")
    made = stops.stops(request.principal)
    if request.GET.get("format") == "csv":
        return csv_response("stops", _CSV_HEADER, map(_csv_row, in_pages(made)))
    found = cursor_page(made, cursor=request.GET.get("cursor"))
    return render(request, "stops/list.html", {"rows": found.items, "page": found})


@page
@never_cache
@require_http_methods(["GET", "POST"])
def new(request: PersonRequest) -> HttpResponse:
    """What will happen, with numbers, asked once; then it is done. The dialog is the include the page uses."""
    given = request.POST if request.method == "POST" else request.GET
    scope, scope_id = given.get("scope", ""), id_of(given.get("id"))
    if scope not in StopScope.values or scope_id is None:
        raise not_found("page")
    target = stops.target(request.principal, StopScope(scope), scope_id)
    if request.method == "POST":
        made = services.stop(
            actor=request.principal, scope=StopScope(scope), scope_id=scope_id, reason=given.get("reason", "")
        )
        return redirect("stop", stop_id=made.pk)
    held = stops.holding(target)
    if held is not None and not is_part(request):
        return redirect("stop", stop_id=held.pk)
    context = {
        "target": target,
        "found": stops.found(target),
        "alone": services.nobody_could_agree_to_lifting(actor=request.principal, target=target),
        "held": held,
    }
    return render(request, "stops/confirm.html" if is_part(request) == DIALOG else "stops/new.html", context)


@page
@never_cache
@require_GET
def detail(request: PersonRequest, stop_id: uuid.UUID) -> HttpResponse:
    stop = stops.stop_named(request.principal, stop_id)
    may_lift = stops.may_lift(request.principal, stop)
    asked = stops.lifting_asked(request.principal, stop) if stop.in_force else None
    question = next((row for row in asked.escalations.all() if row.state == "open"), None) if asked else None
    if question and not request.principal.has(Permission.ESCALATION_VIEW, team_id=question.team_id):
        question = None  # its page would not open
    stands = stop.lifted_at is None
    executing = list(stops.executing_seen(request.principal, stop).order_by("id")[:SHOWN]) if stands else []
    context = {
        "stop": stop,
        "proofs": [_proof(stop, rung) for rung in stop_proofs.proofs(stop)] if stands else [],
        "kept": [] if stands else stop_proofs.kept_proofs(stop),
        "executing": executing,
        "executing_besides": stops.executing(stop).count() - len(executing) if stands else 0,
        "paused_number": stop.paused_missions.count(),
        "paused": list(stops.paused_seen(request.principal, stop).order_by("id")[:SHOWN]),
        "may_lift": may_lift,
        "asked": asked,
        "question": question,
        "at_stake": stops.at_stake(stop) if may_lift else None,
        "second": may_lift and stops.asks_a_second(stop),
        "alone": may_lift
        and services.nobody_could_agree_to_lifting(actor=request.principal, target=stops.target_of(stop)),
    }
    return render(request, "stops/detail.html", context)


@page
@require_POST
def lift(request: PersonRequest, stop_id: uuid.UUID) -> HttpResponse:
    """Ask the gate to lift it; who may do that alone has done it on return."""
    try:
        judgement = services.ask_to_lift(
            actor=request.principal,
            stop_id=stop_id,
            resume=request.POST.get("resume") == "1",
            reason=request.POST.get("reason", ""),
        )
    except RemitError as error:
        if error.status != 409:
            raise
        messages.error(request, f"{error.message} {' '.join(error.remedies)}")
    else:
        _say(request, judgement)
    return redirect("stop", stop_id=stop_id)


def _say(request: PersonRequest, judgement: Judgement) -> None:
    if judgement.state == "waiting":
        messages.info(request, "Asked. The stop holds until a second person agrees.")
    elif judgement.state == "denied":
        messages.error(request, f"Refused: {judgement.message}")
    else:
        messages.success(request, "The stop is lifted.")


def _proof(stop: Stop, rung: Rung) -> Proof:
    noun, verb = _NOUNS[rung.name]
    if rung.name == "budget":
        said = "Frozen" if rung.found and rung.holds else "Not frozen" if rung.found else "Nothing to freeze"
    elif rung.name == "missions":
        said = "Nothing is allowed any more" if rung.holds else _still_run(rung.left)
    elif rung.found == 0:
        said = f"There were no {noun}"
    else:
        said = f"{rung.left:,} of {rung.found:,} {noun} {verb}"
    waited = (now() - stop.at).total_seconds()
    broken = rung.since is not None or waited > PATIENCE_SECONDS
    return Proof(rung, "allow" if rung.holds else "deny" if broken else "wait", said)


def _still_run(number: int) -> str:
    return "1 mission still runs" if number == 1 else f"{number:,} missions still run"


_NOUNS = {
    "missions": ("missions", "run"),
    "permits": ("permits", "live"),
    "questions": ("questions", "open"),
    "tokens": ("tokens of runs", "live"),
    "processes": ("sandboxes", "alive"),
    "holds": ("holds of work not started", "left"),
    "budget": ("budgets", "open"),
}


def _csv_row(stop: Stop) -> tuple[object, ...]:
    lifted = (stop.lifted_at.isoformat(), stop.lifted_by.name) if stop.lifted_at and stop.lifted_by else ("", "")
    return (
        *(stop.pk, stop.at.isoformat(), stop.scope, stop.name, stop.reason, stop.by.name),
        *(stop.counts.get("sandboxes", 0), stop.proven_seconds if stop.proven_at else "", *lifted),
    )
