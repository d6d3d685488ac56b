"""Puts the acting principal on every Django request. Pages use the session; the REST edge overrides it from its
token."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from controlplane.common.ids import parse_id
from controlplane.tenancy import services
from controlplane.tenancy.types import Principal

SESSION_ORGANISATION = "organisation_id"


class PrincipalMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.principal = principal_of_request(request)  # type: ignore[attr-defined]
        return self.get_response(request)


def principal_of_request(request: HttpRequest) -> Principal | None:
    if not request.user.is_authenticated:
        return None
    chosen: uuid.UUID | None = parse_id(request.session.get(SESSION_ORGANISATION))
    return services.principal_of_user(user=request.user, organisation_id=chosen) or (
        services.principal_of_user(user=request.user) if chosen else None
    )
