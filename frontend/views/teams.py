"""Settings: the organisation's teams, and adding one."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from agents import services
from controlplane.common.errors import RemitError
from controlplane.tenancy import selectors
from controlplane.tenancy.types import Permission
from frontend.form_errors import show_error
from frontend.pages import PersonRequest, page, require_anywhere

_STANDING = Q(memberships__suspended_at__isnull=True, memberships__user__is_active=True)


class TeamForm(forms.Form):
    name = forms.CharField(label="Name", max_length=120, widget=forms.TextInput(attrs={"autocomplete": "off"}))


@page
@never_cache
@require_http_methods(["GET", "POST"])
def overview(request: PersonRequest) -> HttpResponse:
    principal = request.principal
    require_anywhere(principal, Permission.MEMBER_VIEW, "Teams")
    form, error = TeamForm(request.POST or None), None
    if request.method == "POST":
        require_anywhere(principal, Permission.ORGANISATION_WRITE, "Adding a team")
        if form.is_valid():
            try:
                team = services.add_team(actor=principal, name=form.cleaned_data["name"])
            except RemitError as refused:
                error = show_error(form, refused)
            else:
                messages.success(request, f"{team.name} is here. Give people roles in it, and its budget a limit.")
                return redirect("teams")
    teams = selectors.teams(principal).annotate(people=Count("memberships__user", filter=_STANDING, distinct=True))
    context = {
        "teams": teams.order_by("name"),
        "form": form,
        "error": error,
        "may_add": principal.has(Permission.ORGANISATION_WRITE),
        "may_see_budgets": principal.has_anywhere(Permission.BUDGET_VIEW),
    }
    status = error.status if error else 422 if form.errors else 200
    return render(request, "settings/teams.html", context, status=status)
