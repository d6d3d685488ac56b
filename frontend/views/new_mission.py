"""Starting a mission from a template: at most four fields, the remit in plain words beside them, and a try at the
gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from agents.catalogue import (
    TEMPLATES,
    Template,
    agents_for,
    readiness_of,
    remit_of,
    samples_installing,
    start_from_template,
    startable_agent,
    template_of,
)
from agents.catalogue.trying import Answer, try_samples
from agents.choices import Runtime
from agents.models import Agent
from agents.remits import Remit
from controlplane.common.errors import RemitError, not_found
from controlplane.tenancy.models import Team
from controlplane.tenancy.selectors import currency_of, sign_off_above, teams_with
from controlplane.tenancy.types import Permission
from frontend.ceilings import ceiling_of_team, in_words
from frontend.pages import PersonRequest, id_of, page
from frontend.submitting import submit
from frontend.templatetags.amounts import money_text
from frontend.templatetags.remit import spelt_text
from frontend.trying import importance_of

# A title is the longest of what goes along in an address.
_LONGEST_KEPT = 300
MOST_AGENTS = 200
_NAMES = ("team", *sorted({field.name for template in TEMPLATES.values() for field in template.fields}))
_WIDGET_ATTRIBUTES = {"money": {"inputmode": "decimal"}, "hours": {"inputmode": "numeric"}}


@page
@require_http_methods(["GET", "POST"])
def new(request: PersonRequest) -> HttpResponse:
    """GET chooses and previews, POST tries or starts. Nothing typed is lost when something is wrong with it."""
    error: RemitError | None = None
    agent: Agent | None = None
    try:
        agent = _named_agent(request)
    except RemitError as refused:
        if refused.status == 404:
            raise
        error = refused
    chosen = _chosen_template(request, agent)
    agent = agent if agent and template_of(agent) == chosen else None
    teams = teams_with(request.principal, Permission.MISSION_WRITE)
    team = _chosen_team(request, teams, agent)
    answers: Sequence[Answer] = ()
    if request.method == "POST" and error is None:
        try:
            if team is None:
                raise _no_team()
            if "try" not in request.POST:
                return _started(request, chosen, team)
            importance = importance_of(request.POST)
            tried = replace(chosen, runtime=Runtime(agent.runtime)) if agent else chosen
            answers = try_samples(actor=request.principal, chosen=tried, team=team, importance=importance)
        except RemitError as refused:
            error = refused
    shown = team or next(iter(teams), None)
    installing = samples_installing(request.principal)
    currency, signed_above = currency_of(request.principal), sign_off_above(request.principal)
    ceilings = [in_words(found) for team in teams if (found := ceiling_of_team(team.pk)) is not None]
    limits = _limits(money_text(signed_above, currency), ceilings)
    kept = _kept(request, chosen)
    agents = _agents(request, chosen, shown, agent)
    form = _form(chosen, request.POST if request.method == "POST" else None, kept, agents)
    form.initial["agent_id"] = agent.pk if agent else ""
    _explain(form, error, limits)
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
    mission = start_from_template(
        actor=request.principal,
        team_id=team.pk,
        code=chosen.code,
        values=values,
        agent_id=id_of(request.POST.get("agent_id")),
        to_reword="start" not in request.POST,
    )
    if "start" in request.POST:
        submit(request, mission.pk)
    return redirect("mission-change" if "edit" in request.POST else "mission", mission_id=mission.pk)


def _named_agent(request: PersonRequest) -> Agent | None:
    """The registered one that it is for, whatever else is chosen. Raises as `startable_agent`."""
    named = request.POST.get("agent_id") if request.method == "POST" else request.GET.get("agent_id")
    if not named:
        return None
    agent_id = id_of(named)
    if agent_id is None:
        raise not_found("agent")
    return startable_agent(request.principal, agent_id)


def _chosen_template(request: PersonRequest, agent: Agent | None) -> Template:
    """The one that is named, else the one for what the agent runs."""
    named = TEMPLATES.get(request.POST.get("template") or request.GET.get("template") or "")
    return named or (template_of(agent) if agent else None) or TEMPLATES["receivables"]


def _agents(request: PersonRequest, chosen: Template, team: Team | None, named: Agent | None) -> list[tuple[str, str]]:
    """What the team can give this mission to. The first is the template's own: registered by itself where it is new.
    `named` is among them however many there are."""
    if team is None:
        return []
    names_one = any(field.name == "agent" for field in chosen.fields)
    own = "A new one, named below" if names_one else chosen.agent_name
    rows = agents_for(request.principal, chosen, team.pk)
    others = rows if names_one else rows.exclude(name=chosen.agent_name)
    listed = list(others[:MOST_AGENTS])
    if named is not None and named not in listed:
        listed += others.filter(pk=named.pk)
    return [("", own), *((str(row.pk), spelt_text(row.name)) for row in listed)]


def _chosen_team(request: PersonRequest, teams: Sequence[Team], agent: Agent | None) -> Team | None:
    """The one that is named, else the agent's; the only one without being named."""
    named = id_of(request.POST.get("team") or request.GET.get("team")) or (agent.team_id if agent else None)
    only = teams[0] if len(teams) == 1 else None
    return next((team for team in teams if team.pk == named), only)


def _no_team() -> RemitError:
    return RemitError("mission.team", "Choose a team you may start missions in.", 422)


def _kept(request: PersonRequest, chosen: Template) -> dict[str, str]:
    """What was typed: it goes along to another template, whose own words stand in the fields that nobody touched."""
    sent = request.POST if request.method == "POST" else request.GET
    untouched = {field.name: field.default for field in chosen.fields} if request.method == "POST" else {}
    return {name: sent[name][:_LONGEST_KEPT] for name in _NAMES if name in sent and sent[name] != untouched.get(name)}


def _form(chosen: Template, data: Any, kept: dict[str, str], agents: list[tuple[str, str]]) -> forms.Form:
    """The template's fields, after the agents where there are any besides its own."""
    form = forms.Form(data=data, initial=kept)
    if len(agents) > 1:
        form.fields["agent_id"] = forms.CharField(
            label="Agent", required=False, initial="", widget=forms.Select(choices=agents)
        )
    for field in chosen.fields:
        form.fields[field.name] = _form_field(field)
    return form


def _explain(form: forms.Form, error: RemitError | None, limits: str) -> None:
    """`limits` stand beside the amount: what else decides how much of it can be spent."""
    form.fields["budget"].help_text += f". {limits}"
    if error is not None:
        form.is_valid()
        for problem in error.errors:
            name = problem.pointer.strip("/").split("/")[-1]
            form.add_error(name if name in form.fields else None, problem.message)


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
