"""Who a request or websocket comes from, for the edges that are not Django's: a bearer token or the session cookie."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from http.cookies import CookieError, SimpleCookie
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user
from django.http import HttpRequest

from controlplane.common.errors import RemitError
from controlplane.common.http import Scope, bearer_of, header
from controlplane.tenancy import services
from controlplane.tenancy.middleware import principal_of_request
from controlplane.tenancy.types import Principal


@dataclass(frozen=True)
class Credential:
    """What a connection presented: asked again, it answers for the present moment. Never logged."""

    token: str | None
    session_key: str | None


@dataclass(frozen=True)
class Authenticated:
    principal: Principal
    until: datetime | None  # when the session ends by itself; None: the credential is asked again anyway


def principal_of_scope(scope: Scope) -> Principal:
    """The machine or person behind the bearer token. Blocking. Raises 401 `token.*`; cookies don't count here."""
    token = bearer_of(scope)
    if token is None:
        raise RemitError(
            "token.missing",
            "This needs a token.",
            401,
            remedies=("Send Authorization: Bearer rmt_…; runs get theirs as REMIT_TOKEN.",),
        )
    return services.principal_of_token(token)


def credential_of_scope(scope: Scope) -> Credential:
    """The token, or else the session key, as sent."""
    token = bearer_of(scope)
    return Credential(token, None if token else _session_key(scope))


def authenticate(credential: Credential) -> Authenticated | None:
    """Who that is right now; None when the token or session is not, or no longer, good. Blocking."""
    if credential.token is not None:
        try:
            return Authenticated(services.principal_of_token(credential.token), None)
        except RemitError:
            return None
    if credential.session_key is None:
        return None
    request = HttpRequest()
    request.session = _session_store(credential.session_key)
    request.user = get_user(request)
    principal = principal_of_request(request)
    return Authenticated(principal, request.session.get_expiry_date()) if principal else None


def _session_key(scope: Scope) -> str | None:
    try:
        cookies = SimpleCookie(header(scope, "cookie") or "")
    except CookieError:
        return None
    morsel = cookies.get(settings.SESSION_COOKIE_NAME)
    return morsel.value if morsel else None


def _session_store(session_key: str) -> Any:
    return import_module(settings.SESSION_ENGINE).SessionStore(session_key)
