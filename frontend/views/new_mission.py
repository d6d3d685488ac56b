"""Starting a mission from a template: at most four fields, the remit in plain words beside them, and a try at the
gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from agents import services
from agents.catalogue import (
    TEMPLATES,
    Template,
    readiness_of,
    samples_installing,
    start_from_template,
    template,
)
from agents.catalogue.trying import try_samples
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Team
from controlplane.tenancy.selectors import currency_of, sign_off_above, teams_with
from controlplane.tenancy.types import Permission
from frontend.ceilings import ceiling_of_team, in_words
from frontend.pages import PersonRequest, id_of, page
from frontend.submitting import tell_submitted
from frontend.templatetags.amounts import money_text

_WIDGET_ATTRIBUTES = {"money": {"inputmode": "decimal"}, "hours": {"inputmode": "numeric"}}


@page
@require_http_methods(["GET", "POST"])
def new(request: PersonRequest) -> HttpResponse:
    """GET chooses and previews, POST starts. Nothing typed is lost when something is wrong with it."""
    chosen = TEMPLATES.get(
        request.POST.get("template") or request.GET.get("template") or "receivables", TEMPLATES["receivables"]
    )
    teams = teams_with(request.principal, Permission.MISSION_WRITE)
    team = _chosen_team(request, teams)
    error: RemitError | None = None
    if request.method == "POST":
        values = {field.name: request.POST.get(field.name, "") for field in chosen.fields}
        try:
            if team is None:
                raise _no_team()
            mission = start_from_template(actor=request.principal, team_id=team.pk, code=chosen.code, values=values)
            if "start" in request.POST:
                tell_submitted(request, services.submit_mission(actor=request.principal, mission_id=mission.pk))
            return redirect("mission-change" if "edit" in request.POST else "mission", mission_id=mission.pk)
        except RemitError as refused:
            error = refused
    shown = team or next(iter(teams), None)
    form = _form(chosen, request.POST if request.method == "POST" else None, error)
    installing = samples_installing(request.principal)
    currency = currency_of(request.principal)
    ceilings = [in_words(found) for team in teams if (found := ceiling_of_team(team.pk)) is not None]
    _say_limits(form.fields["budget"], money_text(sign_off_above(request.principal), currency), ceilings)
    context = {
        "templates": list(TEMPLATES.values()),
        "chosen": chosen,
        "form": form,
        "teams": teams,
        "team": shown,
        "error": error if error and not error.errors else None,  # those of fields stand there
        "currency": currency,
        "installing": installing,
        "here": readiness_of(request.principal, chosen, installing, shown.pk if shown else None),
        "ceilings": ceilings,
    }
    return render(request, "missions/new/page.html", context, status=error.status if error else 200)


@page
@require_POST
def try_gate(request: PersonRequest) -> HttpResponse:
    """What the gate would say to the template's sample actions. Judges for real, commits nothing."""
    chosen = template(request.POST.get("template", ""))
    team = _chosen_team(request, teams_with(request.principal, Permission.MISSION_WRITE))
    if team is None:
        raise _no_team()
    answers = try_samples(actor=request.principal, chosen=chosen, team=team)
    return render(request, "missions/new/answers.html", {"answers": answers, "chosen": chosen, "team": team})


def _chosen_team(request: PersonRequest, teams: Sequence[Team]) -> Team | None:
    """The one that is named; the only one without being named."""
    named = id_of(request.POST.get("team") or request.GET.get("team"))
    only = teams[0] if len(teams) == 1 else None
    return next((team for team in teams if team.pk == named), only)


def _no_team() -> RemitError:
    return RemitError("mission.team", "Choose a team you may start missions in.", 422)


def _form(chosen: Template, data: Any, error: RemitError | None) -> forms.Form:
    form = forms.Form(data=data)
    for field in chosen.fields:
        form.fields[field.name] = _form_field(field)
    if error is not None:
        form.is_valid()
        for problem in error.errors:
            name = problem.pointer.strip("/").split("/")[-1]
            form.add_error(name if name in form.fields else None, problem.message)
    return form


def _say_limits(budget: forms.Field, sign_off: str, ceilings: Sequence[str]) -> None:
    """Beside the amount: what else decides how much of it can be spent, and when a second person is asked."""
    tighter = [f"{words}: no mission of it can spend more." for words in ceilings]
    budget.help_text = " ".join([f"{budget.help_text}. Above {sign_off} a second person signs it off.", *tighter])


def _form_field(field: Any) -> forms.Field:
    if field.kind == "choice":
        return forms.ChoiceField(
            label=field.label, choices=list(field.choices), initial=field.default, help_text=field.hint
        )
    widget = forms.TextInput(attrs={"autocomplete": "off", **_WIDGET_ATTRIBUTES.get(field.kind, {})})
    return forms.CharField(
        label=field.label, initial=field.default, help_text=field.hint, widget=widget, required=bool(field.default)
    )
