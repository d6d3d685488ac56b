"""Me: the viewer's name, time zone and preferences, their organisations and roles, and signing out."""

from __future__ import annotations

from zoneinfo import available_timezones

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from agents import services
from controlplane.common.errors import RemitError
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.types import ALL_TEAMS
from frontend.pages import PersonRequest, page

SHORTCUTS_COOKIE = "remit_shortcuts"
_A_YEAR = 365 * 24 * 3600


@page
@require_http_methods(["GET", "POST"])
def profile(request: PersonRequest) -> HttpResponse:
    error: RemitError | None = None
    given = {"name": request.user.name, "time_zone": request.user.time_zone}  # type: ignore[union-attr]
    if request.method == "POST":
        given = {name: request.POST.get(name, "") for name in given}
        try:
            services.update_profile(actor=request.principal, single_key_shortcuts="shortcuts" in request.POST, **given)
        except RemitError as refused:
            error = refused
        else:
            messages.success(request, "Saved.")
            response = redirect("me")
            off = "shortcuts" not in request.POST
            response.set_cookie(
                SHORTCUTS_COOKIE, "off" if off else "on", max_age=_A_YEAR, samesite="Lax", secure=request.is_secure()
            )
            return response
    context = {
        "given": given,
        "error": error,
        "wrong": {problem.pointer.strip("/"): problem.message for problem in error.errors} if error else {},
        "zones": sorted(available_timezones()),
        "organisations": tenancy.organisations_of(request.principal.id),
        "roles": [
            (role, "all teams" if where is ALL_TEAMS else f"{len(where)} team{'s' if len(where) != 1 else ''}")
            for role, where in request.principal.roles.items()
        ],
    }
    return render(request, "me/page.html", context, status=error.status if error else 200)
