"""An agent's credentials: issued by a form, shown once on the agent's page, revoked there."""

from __future__ import annotations

import uuid
from datetime import timedelta

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from agents import selectors, services
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Permission
from frontend import shown_once
from frontend.form_errors import show_error
from frontend.pages import PersonRequest, page, require_in_team

_LIVES = ((7, "7 days"), (30, "30 days"), (90, "90 days"), (365, "A year"))


class CredentialForm(forms.Form):
    """What issuing asks for."""

    name = forms.CharField(
        label="Name",
        max_length=120,
        help_text="Where it will be used, so that you know later what stops when you revoke it.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    days = forms.TypedChoiceField(label="Ends after", choices=_LIVES, coerce=int, initial=90)


@page
@never_cache
@require_http_methods(["GET", "POST"])
def new(request: PersonRequest, agent_id: uuid.UUID) -> HttpResponse:
    agent = selectors.agent(request.principal, agent_id)
    require_in_team(request.principal, Permission.TOKEN_WRITE, agent.team_id, "Credentials")
    form = CredentialForm(request.POST or None)
    error: RemitError | None = None
    if request.method == "POST" and form.is_valid():
        try:
            _, text = shown_once.made_once(
                request,
                lambda: services.issue_credential(
                    actor=request.principal,
                    agent_id=agent.pk,
                    name=form.cleaned_data["name"],
                    expires_at=now() + timedelta(days=form.cleaned_data["days"]),
                ),
                if_lost="If you lost it, revoke it on the agent's page and issue another.",
            )
        except RemitError as refused:
            error = show_error(form, refused)
        else:
            shown_once.keep(request, agent.pk, text)
            return redirect("agent", agent_id=agent.pk)
    status = error.status if error else 422 if form.errors else 200
    return render(request, "agents/credential.html", {"agent": agent, "form": form, "error": error}, status=status)


@page
@require_POST
def revoke(request: PersonRequest, agent_id: uuid.UUID, token_id: uuid.UUID) -> HttpResponse:
    agent = selectors.agent(request.principal, agent_id)
    services.revoke_credential(actor=request.principal, agent_id=agent.pk, token_id=token_id)
    messages.success(request, "Revoked. Whatever still uses it is refused at its next call.")
    return redirect("agent", agent_id=agent_id)
