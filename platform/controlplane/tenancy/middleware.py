"""Puts the acting principal on every Django request. Pages use the session; the REST edge overrides it from its
token."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from controlplane.common.ids import parse_id
from controlplane.tenancy import second_factor, services
from controlplane.tenancy.types import Principal

SESSION_ORGANISATION = "organisation_id"


class PrincipalMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.principal, request.must_set_up = _found(request)  # type: ignore[attr-defined]
        return self.get_response(request)


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
