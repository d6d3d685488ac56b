"""What every page starts with: a signed-in person inside an organisation, and how a refusal or a form error is
shown."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable
from typing import Any, Concatenate, Final, ParamSpec, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render

from controlplane.common.errors import RemitError
from controlplane.tenancy.types import ROLE_PERMISSIONS, Permission, Principal, Role

P = ParamSpec("P")
NO_TEAM: Final = "There is no team yet. An administrator adds one under Settings, Teams."


class PersonRequest(HttpRequest):
    """A request whose principal is known to be there."""

    principal: Principal


def page(
    view: Callable[Concatenate[PersonRequest, P], HttpResponseBase],
) -> Callable[Concatenate[HttpRequest, P], HttpResponseBase]:
    """Only for signed-in people with a membership. Others are sent to sign in, or told that nobody has invited them
    yet."""

    @functools.wraps(view)
    def guarded(request: Any, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if request.principal is None:
            if request.must_set_up:
                return redirect("mfa_activate_totp")
            if request.user.is_authenticated:
                return render(request, "errors/no_organisation.html", status=403)
            return redirect_to_login(request.get_full_path())
        _refuse_what_is_no_text(request)
        return view(request, *args, **kwargs)

    return cast(Callable[Concatenate[HttpRequest, P], HttpResponseBase], guarded)


def _refuse_what_is_no_text(request: HttpRequest) -> None:
    """NUL in an address or a form: no person typed it, and PostgreSQL can neither store nor search it."""
    given = (text for form in (request.GET, request.POST) for name, values in form.lists() for text in (name, *values))
    if any("\0" in str(text) for text in given):
        raise RemitError(
            "request.malformed",
            "The address or the form holds a NUL character, which is not text. Nothing was done.",
            400,
            remedies=("Type it again instead of pasting it.",),
        )


def require_anywhere(principal: Principal, permission: Permission, what: str) -> None:
    """The page is for people who hold the permission in some team; others learn which roles have it."""
    if not principal.has_anywhere(permission):
        raise _not_for_you(principal, permission, what)


def require_in_team(principal: Principal, permission: Permission, team_id: uuid.UUID, what: str) -> None:
    """The same for one team's page, to people who may see that it exists."""
    if not principal.has(permission, team_id=team_id):
        raise _not_for_you(principal, permission, what)


def _not_for_you(principal: Principal, permission: Permission, what: str) -> RemitError:
    return RemitError(
        "permission.denied",
        f"{what} are for {roles_with(permission)} of {principal.organisation_name}.",
        403,
        remedies=("Ask an administrator of the organisation for one of these roles.",),
    )


def roles_with(permission: Permission) -> str:
    """ "administrators, approvers and auditors": who may, in words."""
    words = [_ROLES_IN_WORDS[role] for role in Role if permission in ROLE_PERMISSIONS[role]]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


_ROLES_IN_WORDS = {
    Role.ADMIN: "administrators",
    Role.BUILDER: "builders",
    Role.APPROVER: "approvers",
    Role.FINANCE: "finance",
    Role.AUDITOR: "auditors",
}


def zone_of(principal: Principal) -> ZoneInfo:
    """The viewer's own time zone, in which pages read and write moments."""
    try:
        return ZoneInfo(principal.time_zone or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def is_part(request: HttpRequest) -> str:
    """The id of the part an htmx request wants, or empty for a whole page. Partials are the includes the page itself
    uses."""
    return request.headers.get("HX-Target", "") if request.headers.get("HX-Request") == "true" else ""


def id_of(value: str | None) -> uuid.UUID | None:
    """An id from a query string; None for anything that is not one."""
    try:
        return uuid.UUID(value) if value else None
    except ValueError:
        return None
