"""Starting a mission from a template: at most four fields, the remit in plain words beside them, and a try at the
gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from agents.catalogue import (
    TEMPLATES,
    Template,
    readiness_of,
    remit_of,
    samples_installing,
    start_from_template,
)
from agents.catalogue.trying import Answer, try_samples
from agents.remits import Remit
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Team
from controlplane.tenancy.selectors import currency_of, sign_off_above, teams_with
from controlplane.tenancy.types import Permission
from frontend.ceilings import ceiling_of_team, in_words
from frontend.pages import PersonRequest, id_of, page
from frontend.submitting import submit
from frontend.templatetags.amounts import money_text
from frontend.trying import importance_of

# A title is the longest of what goes along in an address.
_LONGEST_KEPT = 300
_NAMES = ("team", *sorted({field.name for template in TEMPLATES.values() for field in template.fields}))
_WIDGET_ATTRIBUTES = {"money": {"inputmode": "decimal"}, "hours": {"inputmode": "numeric"}}


@page
@require_http_methods(["GET", "POST"])
def new(request: PersonRequest) -> HttpResponse:
    """GET chooses and previews, POST tries or starts. Nothing typed is lost when something is wrong with it."""
    chosen = TEMPLATES.get(
        request.POST.get("template") or request.GET.get("template") or "receivables", TEMPLATES["receivables"]
    )
    teams = teams_with(request.principal, Permission.MISSION_WRITE)
    team = _chosen_team(request, teams)
    error: RemitError | None = None
    answers: Sequence[Answer] = ()
    if request.method == "POST":
        try:
            if team is None:
                raise _no_team()
            if "try" not in request.POST:
                return _started(request, chosen, team)
            importance = importance_of(request.POST)
            answers = try_samples(actor=request.principal, chosen=chosen, team=team, importance=importance)
        except RemitError as refused:
            error = refused
    shown = team or next(iter(teams), None)
    installing = samples_installing(request.principal)
    currency, signed_above = currency_of(request.principal), sign_off_above(request.principal)
    ceilings = [in_words(found) for team in teams if (found := ceiling_of_team(team.pk)) is not None]
    limits = _limits(money_text(signed_above, currency), ceilings)
    kept = _kept(request, chosen)
    form = _form(chosen, request.POST if request.method == "POST" else None, kept, error, limits)
    remit = _remit(request, chosen)
    context = {
        "templates": [(item, urlencode({"template": item.code, **kept})) for item in TEMPLATES.values()],
        "chosen": chosen,
        "form": form,
        "teams": teams,
        "team": shown,
        "error": error if error and not error.errors else None,  # those of fields stand there
        "currency": currency,
        "remit": remit,
        "signed_above": signed_above if remit.budget_money > signed_above else None,
        "installing": installing,
        "here": readiness_of(request.principal, chosen, installing, shown.pk if shown else None),
        "ceilings": ceilings,
        "answers": answers,
    }
    return render(request, "missions/new/page.html", context, status=error.status if error else 200)


def _started(request: PersonRequest, chosen: Template, team: Team) -> HttpResponse:
    values = {field.name: request.POST.get(field.name, "") for field in chosen.fields}
    mission = start_from_template(actor=request.principal, team_id=team.pk, code=chosen.code, values=values)
    if "start" in request.POST:
        submit(request, mission.pk)
    return redirect("mission-change" if "edit" in request.POST else "mission", mission_id=mission.pk)


def _chosen_team(request: PersonRequest, teams: Sequence[Team]) -> Team | None:
    """The one that is named; the only one without being named."""
    named = id_of(request.POST.get("team") or request.GET.get("team"))
    only = teams[0] if len(teams) == 1 else None
    return next((team for team in teams if team.pk == named), only)


def _no_team() -> RemitError:
    return RemitError("mission.team", "Choose a team you may start missions in.", 422)


def _kept(request: PersonRequest, chosen: Template) -> dict[str, str]:
    """What was typed: it goes along to another template, whose own words stand in the fields that nobody touched."""
    sent = request.POST if request.method == "POST" else request.GET
    untouched = {field.name: field.default for field in chosen.fields} if request.method == "POST" else {}
    return {name: sent[name][:_LONGEST_KEPT] for name in _NAMES if name in sent and sent[name] != untouched.get(name)}


def _form(chosen: Template, data: Any, kept: dict[str, str], error: RemitError | None, limits: str) -> forms.Form:
    """`limits` stand beside the amount: what else decides how much of it can be spent."""
    form = forms.Form(data=data, initial=kept)
    for field in chosen.fields:
        form.fields[field.name] = _form_field(field)
    form.fields["budget"].help_text += f". {limits}"
    if error is not None:
        form.is_valid()
        for problem in error.errors:
            name = problem.pointer.strip("/").split("/")[-1]
            form.add_error(name if name in form.fields else None, problem.message)
    return form


def _remit(request: PersonRequest, chosen: Template) -> Remit:
    """What the words beside the form tell of: with the budget as it is typed, once it can be read as one."""
    typed = request.POST.get("budget") or request.GET.get("budget") or ""
    try:
        return remit_of(chosen, {"budget": typed})
    except RemitError:
        return remit_of(chosen, {})


def _limits(sign_off: str, ceilings: Sequence[str]) -> str:
    tighter = [f"{words}: no mission of it can spend more." for words in ceilings]
    return " ".join([f"Above {sign_off} a second person signs it off.", *tighter])


def _form_field(field: Any) -> forms.Field:
    if field.kind == "choice":
        return forms.ChoiceField(
            label=field.label, choices=list(field.choices), initial=field.default, help_text=field.hint
        )
    widget = forms.TextInput(attrs={"autocomplete": "off", **_WIDGET_ATTRIBUTES.get(field.kind, {})})
    return forms.CharField(
        label=field.label, initial=field.default, help_text=field.hint, widget=widget, required=bool(field.default)
    )
