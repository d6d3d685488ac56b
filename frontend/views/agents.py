"""Agents: the register, and one agent with its health, credentials, missions and record."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from agents import selectors, services
from agents.catalogue import TEMPLATES, template_of
from agents.choices import AgentState, Runtime
from agents.models import Agent
from budgets import selectors as budgets
from budgets.types import Limits
from controlplane.common.clock import now
from controlplane.common.cursors import page as cursor_page
from controlplane.common.errors import FieldError, RemitError, invalid
from controlplane.common.typed_amounts import NotAnAmount, typed_amount
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.types import Permission
from frontend import shown_once
from frontend.connecting import connection_settings
from frontend.exports import csv_response, in_pages
from frontend.form_errors import show_error
from frontend.pages import NO_TEAM, PersonRequest, id_of, page, require_anywhere
from frontend.saved import saved_views
from frontend.templatetags.remit import spelt_text
from frontend.undoing import undoable
from governance import selectors as governance
from governance.choices import Verdict

HEARD_SECONDS = 60
SPEND_DAYS = 30
SHOWN = 10
CREDENTIALS_SHOWN = 50
PROGRAMS = {item.program: item.agent_name for item in TEMPLATES.values() if item.program}


@page
@require_GET
def listing(request: PersonRequest) -> HttpResponseBase:
    require_anywhere(request.principal, Permission.AGENT_VIEW, "Agents")
    text, state = request.GET.get("q", "").strip()[:100], request.GET.get("state", "")
    state = state if state in AgentState.values else ""
    everyone = selectors.agents(request.principal, text=text, state=state)
    if request.GET.get("format") == "csv":
        return csv_response("agents", _CSV_HEADER, map(_csv_row, in_pages(everyone)))
    found = cursor_page(everyone, cursor=request.GET.get("cursor"))
    moment = now()
    context = {
        **saved_views(request, "agents"),
        "rows": [(row, _heard(row, moment)) for row in found.items],
        "page": found,
        "text": text,
        "state": state,
        "states": AgentState.choices,
        "may_register": request.principal.has_anywhere(Permission.AGENT_WRITE),
    }
    return render(request, "agents/list.html", context)


@page
@require_http_methods(["GET", "POST"])
def new(request: PersonRequest) -> HttpResponse:
    """A managed agent runs a shipped program; an external one runs elsewhere and calls in with a credential."""
    require_anywhere(request.principal, Permission.AGENT_WRITE, "New agents")
    teams = tenancy.teams_with(request.principal, Permission.AGENT_WRITE)
    form = AgentForm(request.POST or None, teams=[(str(team.pk), spelt_text(team.name)) for team in teams])
    error: RemitError | None = None
    if request.method == "POST" and form.is_valid():
        try:
            agent = _register(request, form.cleaned_data)
        except RemitError as refused:
            error = show_error(form, refused)
        else:
            messages.success(request, f"{agent.name} is registered.")
            return redirect("agent", agent_id=agent.pk)
    refused_now = error is not None or bool(form.errors)
    context = {"form": form, "error": error, "currency": _currency(request), "programs": PROGRAMS}
    return render(request, "agents/new.html", context, status=422 if refused_now else 200)


@page
@never_cache
@require_GET
def detail(request: PersonRequest, agent_id: uuid.UUID) -> HttpResponse:
    principal = request.principal
    agent = selectors.agent(principal, agent_id)
    missions = selectors.missions(principal, selectors.Filters(agent_id=agent.pk))
    rows = selectors.mission_rows(principal, list(missions[:SHOWN]))
    days = []
    if agent.account_id is not None and principal.has_anywhere(Permission.BUDGET_VIEW):
        days = budgets.spend_per_day(principal, account_id=agent.account_id, days=SPEND_DAYS)
    # A refresh of a part must not use up what is shown once.
    once = request.headers.get("HX-Request") != "true"
    secret = shown_once.take(request, agent.pk) if once else ""
    spent = sum((day.spent.money for day in days), Decimal(0))
    context = {
        "agent": agent,
        "heard": _heard(agent, now()),
        "versions": sorted(agent.versions.all(), key=lambda version: -version.number),
        "missions": rows,
        "more_missions": agent.live_missions + agent.ended_missions > len(rows),  # type: ignore[attr-defined]
        "credentials": list(tenancy.credentials_of_agent(principal, agent.pk)[:CREDENTIALS_SHOWN]),
        "run_tokens": list(tenancy.run_tokens_of_agent(principal, agent.pk)[:SHOWN]),
        "secret": secret,
        "may_issue": principal.has(Permission.TOKEN_WRITE, team_id=agent.team_id),
        "denied": governance.actions(
            principal=principal,
            filters=governance.ActionFilters(agent_id=agent.pk, verdict=Verdict.DENY),
            limit=SHOWN,
        ).items,
        "burn": [day.spent.money for day in days],
        "spent": spent,
        "spend_days": SPEND_DAYS,
        "currency": rows[0].balance.currency if rows and rows[0].balance else _currency(request),
        "rate": _percent(agent.accepted_missions, agent.ended_missions),  # type: ignore[attr-defined]
        "start_url": _start_url(request, agent),
        "may_retire": agent.state == AgentState.ACTIVE and principal.has(Permission.AGENT_WRITE, team_id=agent.team_id),
        "may_operate": principal.has(Permission.MISSION_OPERATE, team_id=agent.team_id),
        "may_reinstate": agent.state == AgentState.RETIRED
        and principal.has(Permission.AGENT_WRITE, team_id=agent.team_id),
        "retire_url": reverse("agent-retire", args=[agent.pk]),
        "now": now(),
    }
    if secret:
        context |= connection_settings(settings.CONFIG.public_url, secret)
    return render(request, "agents/detail.html", context)


@page
@require_POST
def retire(request: PersonRequest, agent_id: uuid.UUID) -> HttpResponse:
    try:
        agent = services.retire_agent(actor=request.principal, agent_id=agent_id)
    except RemitError as error:
        if error.status != 409:
            raise
        messages.error(request, f"{error.message} {' '.join(error.remedies)}")
    else:
        undoable(
            request,
            f"{agent.name} is retired and takes no new missions.",
            url=reverse("agent-reinstate", args=[agent.pk]),
        )
    return redirect("agent", agent_id=agent_id)


@page
@require_POST
def reinstate(request: PersonRequest, agent_id: uuid.UUID) -> HttpResponse:
    agent = services.reinstate_agent(actor=request.principal, agent_id=agent_id)
    messages.success(request, f"{agent.name} is back and takes missions again.")
    return redirect("agent", agent_id=agent_id)


_CSV_HEADER = (
    *("id", "name", "owner", "team", "state", "runs", "under_way", "ended", "accepted", "last_heard_at", "created_at"),
)


def _csv_row(agent: Any) -> tuple[object, ...]:
    return (
        *(agent.pk, agent.name, agent.owner.name, agent.team.name, agent.state, agent.runtime),
        *(agent.live_missions, agent.ended_missions, agent.accepted_missions),
        agent.last_seen_at.isoformat() if agent.last_seen_at else "",
        agent.created_at.isoformat(),
    )


class AgentForm(forms.Form):
    """What registering asks for."""

    team = forms.ChoiceField(label="Team")
    name = forms.CharField(label="Name", max_length=120, widget=forms.TextInput(attrs={"autocomplete": "off"}))
    description = forms.CharField(
        label="What it does", max_length=500, required=False, widget=forms.Textarea(attrs={"rows": 2})
    )
    runtime = forms.ChoiceField(
        label="Where it runs",
        choices=[(Runtime.EXTERNAL.value, "Elsewhere, with a credential"), (Runtime.MANAGED.value, "In our sandbox")],
        widget=forms.RadioSelect,
        initial=Runtime.EXTERNAL.value,
    )
    program = forms.ChoiceField(
        label="Program",
        required=False,
        choices=[("", "None: it runs elsewhere"), *PROGRAMS.items()],
        help_text="Only for agents in our sandbox.",
    )
    capabilities = forms.CharField(
        label="Capabilities", max_length=400, required=False, help_text="Words people look for, apart by commas."
    )
    limit = forms.CharField(
        label="Limit a month",
        required=False,
        help_text="Empty: only the limits of its team and missions count.",
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )

    def __init__(self, data: Any, *, teams: list[tuple[str, str]]) -> None:
        super().__init__(data)
        self.fields["team"].choices = teams  # type: ignore[attr-defined]
        if not teams:
            self.fields["team"].help_text = NO_TEAM
        if len(teams) == 1:
            self.fields["team"].widget = forms.HiddenInput()
            self.fields["team"].initial = teams[0][0]

    def clean(self) -> dict[str, Any]:
        if self.cleaned_data.get("runtime") == Runtime.MANAGED and not self.cleaned_data.get("program"):
            self.add_error("program", "Choose what our sandbox runs.")
        return self.cleaned_data


def _register(request: PersonRequest, data: dict[str, str]) -> Agent:
    runtime = Runtime(data["runtime"])
    team_id = id_of(data["team"])
    if team_id is None:
        raise invalid("agent.team", "Choose a team.", FieldError("/team", "one of your teams"))
    return services.register_agent(
        actor=request.principal,
        team_id=team_id,
        name=data["name"],
        runtime=runtime,
        description=data["description"],
        capabilities=[word.strip()[:80] for word in data["capabilities"].split(",") if word.strip()][:20],
        program=data["program"] if runtime is Runtime.MANAGED else "",
        monthly_limits=Limits(money=_money(data["limit"])),
    )


def _money(text: str) -> Decimal | None:
    if not text.strip():
        return None
    try:
        return typed_amount(text)
    except NotAnAmount as error:
        raise invalid("agent.limit", "The limit can't be used.", FieldError("/limit", str(error))) from error


def _start_url(request: PersonRequest, agent: Agent) -> str:
    """Where it is given a mission; empty where it can't be, or not by the viewer."""
    may = request.principal.has(Permission.MISSION_WRITE, team_id=agent.team_id)
    if agent.state != AgentState.ACTIVE or not may or template_of(agent) is None:
        return ""
    return f"{reverse('mission-new')}?agent_id={agent.pk}"


def _heard(agent: Agent, moment: Any) -> str:
    """The tone of its health: allow when it called within the last minute, else neutral."""
    seconds = selectors.since_heartbeat(agent, moment)
    return "allow" if seconds is not None and seconds <= HEARD_SECONDS else "neutral"


def _percent(part: int, whole: int) -> int | None:
    return round(100 * part / whole) if whole else None


def _currency(request: PersonRequest) -> str:
    return tenancy.currency_of(request.principal)
