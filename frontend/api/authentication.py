"""Who a request of the REST interface comes from: a bearer token, or the session cookie with its CSRF token."""

from __future__ import annotations

from typing import Any

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import authentication, exceptions
from rest_framework.request import Request

from agents import services as agents
from controlplane.common.errors import RemitError
from controlplane.tenancy import services as tenancy
from controlplane.tenancy.types import Principal

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class TokenAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer rmt_…`. Any other scheme is refused rather than passed over for the cookie."""

    def authenticate(self, request: Request) -> tuple[None, Principal] | None:
        given = request.headers.get("Authorization")
        if given is None:
            return None
        scheme, _, token = given.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise RemitError("token.missing", "Send a token as “Authorization: Bearer rmt_…”.", 401)
        principal = tenancy.principal_of_token(token.strip())
        if principal.agent_id is not None:
            agents.note_heartbeat(principal=principal)
        return None, principal

    def authenticate_header(self, request: Request) -> str:  # noqa: ARG002
        return "Bearer"


class SessionAuthentication(authentication.SessionAuthentication):
    """The cookie of the pages. What changes something needs `X-CSRFToken` too."""

    def authenticate(self, request: Request) -> tuple[Any, Principal] | None:
        django_request: Any = request._request
        if not django_request.user.is_authenticated:
            return None
        if request.method not in _SAFE:
            try:
                self.enforce_csrf(django_request)
            except exceptions.PermissionDenied as error:
                raise RemitError(
                    "csrf.failed",
                    "A signed-in browser must send its CSRF token along.",
                    403,
                    remedies=("Send the cookie's value as X-CSRFToken, or use a token instead of the cookie.",),
                ) from error
        if getattr(django_request, "must_set_up", False):
            raise RemitError(
                "second_factor.required",
                "Your organisation asks for a second factor, and you have none yet.",
                403,
                remedies=("Set one up on your profile page.",),
            )
        if django_request.principal is None:
            raise RemitError(
                "organisation.none",
                "You belong to no organisation yet.",
                403,
                remedies=("Ask an administrator to invite you.",),
            )
        return django_request.user, django_request.principal


class _TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:  # noqa: ARG002
        return {"type": "http", "scheme": "bearer", "bearerFormat": "rmt_<kind>_<random>_<checksum>"}


class _SessionScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = SessionAuthentication
    name = "session"
    priority = 1

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:  # noqa: ARG002
        return {"type": "apiKey", "in": "cookie", "name": "remit_session"}
