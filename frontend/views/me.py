"""Me: the viewer's name, time zone and preferences, second factor, sessions, tokens, organisations and roles."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from agents import services
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import credentials, second_factor, sessions
from controlplane.tenancy import selectors as tenancy
from controlplane.tenancy.models import User
from controlplane.tenancy.types import ALL_TEAMS
from frontend.pages import PersonRequest, page
from frontend.time_zones import time_zones

SHORTCUTS_COOKIE = "remit_shortcuts"
SHOWN = 5
_A_YEAR = 365 * 24 * 3600


@page
@require_POST
def end_session(request: PersonRequest, session_id: int) -> HttpResponse:
    sessions.end_session(principal=request.principal, session_id=session_id)
    messages.success(request, "That browser is signed out.")
    return redirect("me")


@page
@require_POST
def end_other_sessions(request: PersonRequest) -> HttpResponse:
    ended = sessions.end_other_sessions(principal=request.principal, current_key=request.session.session_key)
    messages.success(request, f"Signed out of {ended} other browser{'s' if ended != 1 else ''}.")
    return redirect("me")


@page
@require_http_methods(["GET", "POST"])
def profile(request: PersonRequest) -> HttpResponse:
    error: RemitError | None = None
    user = request.user
    assert isinstance(user, User)  # noqa: S101 - `page` lets nobody else in
    given = {"name": user.name, "time_zone": user.time_zone}
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
        "zones": time_zones(given["time_zone"]),
        "organisations": tenancy.organisations_of(request.principal.id),
        "roles": [
            (role, "all teams" if where is ALL_TEAMS else f"{len(where)} team{'s' if len(where) != 1 else ''}")
            for role, where in request.principal.roles.items()
        ],
        "sessions": sessions.sessions_of(user, current_key=request.session.session_key),
        "has_second_factor": second_factor.is_on(user.pk),
        "codes_left": second_factor.unused_codes(user),
        "second_factor_required": request.principal.second_factor_required,
        "has_password": user.has_usable_password(),
        "tokens": list(credentials.listed(request.principal).filter(user=user, revoked_at=None)[:SHOWN]),
        "now": now(),
    }
    return render(request, "me/page.html", context, status=error.status if error else 200)
