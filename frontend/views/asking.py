"""Asking for more budget for a mission: an amount, a reason, and whom it will wait for."""

from __future__ import annotations

import uuid

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from agents import selectors, services
from agents.choices import MissionState
from budgets import selectors as budgets
from controlplane.common.errors import RemitError, conflict
from controlplane.common.ids import new_id
from controlplane.common.typed_amounts import NotAnAmount, typed_amount_up_to
from controlplane.tenancy.types import Permission
from frontend.asked import asked
from frontend.form_errors import show_error
from frontend.pages import PersonRequest, id_of, page, require_in_team

MOST_ASKED = 999_999_999_999


class AskForm(forms.Form):
    """What a person says when they ask for more."""

    money = forms.CharField(
        label="How much more",
        max_length=30,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )
    reason = forms.CharField(
        label="Why",
        max_length=300,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Whoever decides reads this.",
    )

    def clean_money(self) -> str:
        try:
            return f"{typed_amount_up_to(self.cleaned_data['money'], MOST_ASKED):f}"
        except NotAnAmount as error:
            raise forms.ValidationError(str(error)) from error


@page
@never_cache
@require_http_methods(["GET", "POST"])
def budget(request: PersonRequest, mission_id: uuid.UUID) -> HttpResponse:
    """Refused input keeps what was typed; the same form sent twice asks once."""
    mission = selectors.mission(request.principal, mission_id)
    require_in_team(request.principal, Permission.MISSION_OPERATE, mission.team_id, "Requests for more budget")
    if mission.state not in (MissionState.ACTIVE, MissionState.PAUSED):
        raise conflict("mission.not_under_way", "Only a mission under way can use more budget.", "Open the mission.")
    form = AskForm(request.POST or None)
    key = id_of(request.POST.get("key")) or new_id()
    error: RemitError | None = None
    if request.method == "POST" and form.is_valid():
        try:
            judgement = services.ask_for_budget(
                actor=request.principal,
                mission_id=mission.pk,
                money=form.cleaned_data["money"],
                reason=form.cleaned_data["reason"],
                key=key,
            )
        except RemitError as refused:
            error = show_error(form, refused)
        else:
            if judgement.state == "waiting":
                messages.info(request, "Asked. It waits for a second person.")
            elif judgement.state == "denied":
                messages.error(request, f"Refused: {judgement.message}")
            else:
                messages.success(request, "The budget is raised.")
            return redirect("mission-tab", mission_id=mission.pk, tab="budget")
    context = {
        "mission": mission,
        "row": selectors.mission_rows(request.principal, [mission])[0],
        "may_operate": True,  # or the form is not shown
        "form": form,
        "error": error,
        "key": key,
        "balance": budgets.mission_spend(mission_ids=[mission.pk]).get(mission.pk),
        "asks": services.whom_a_request_asks(actor=request.principal, mission=mission),
        "open_requests": [
            item for item in asked(request.principal, mission, ("budget.topup",), limit=10) if item.is_open
        ],
    }
    status = 422 if error is not None or form.errors else 200
    return render(request, "missions/ask.html", context, status=status)
