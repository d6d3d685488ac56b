"""Puts the acting principal on every Django request. Pages use the session; the REST edge overrides it from its
token."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import rotate_token
from django.views.csrf import csrf_failure

from controlplane.common.ids import parse_id
from controlplane.tenancy import second_factor, services
from controlplane.tenancy.types import Principal

SESSION_ORGANISATION = "organisation_id"
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class PrincipalMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        principal, request.must_set_up = _found(request)  # type: ignore[attr-defined]
        request.principal = principal  # type: ignore[attr-defined]
        if principal is not None and _shut_out(request, principal):
            go_to_organisation(request, principal.organisation_id)
            if request.method not in _SAFE:
                return csrf_failure(request)
        return self.get_response(request)


def go_to_organisation(request: HttpRequest, organisation_id: uuid.UUID) -> None:
    """Where the session is from now on. Forms that were opened in another organisation are refused: what they would
    add, invite or start would be in this one."""
    if request.session.get(SESSION_ORGANISATION) != str(organisation_id):
        request.session[SESSION_ORGANISATION] = str(organisation_id)
        rotate_token(request)


def _shut_out(request: HttpRequest, principal: Principal) -> bool:
    """Whether the session was in an organisation that is not, or no longer, the person's."""
    was = request.session.get(SESSION_ORGANISATION)
    return was is not None and was != str(principal.organisation_id)


def principal_of_request(request: HttpRequest) -> Principal | None:
    """None also for people who still have to set up the second factor their organisation asks for."""
    return _found(request)[0]


def _found(request: HttpRequest) -> tuple[Principal | None, bool]:
    """The principal, or None and whether a second factor is all that is missing."""
    principal = _principal_of_session(request)
    if principal is not None and second_factor.is_missing(principal):
        return None, True
    return principal, False


def _principal_of_session(request: HttpRequest) -> Principal | None:
    if not request.user.is_authenticated:
        return None
    chosen: uuid.UUID | None = parse_id(request.session.get(SESSION_ORGANISATION))
    return services.principal_of_user(user=request.user, organisation_id=chosen) or (
        services.principal_of_user(user=request.user) if chosen else None
    )
