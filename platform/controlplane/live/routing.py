"""The ASGI application behind `/live`: whose pages may open the socket, and the consumer that serves it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.http.request import split_domain_port, validate_host

from controlplane.common.errors import RemitError
from controlplane.common.http import Receive, Scope, Send, bearer_of, header
from controlplane.live.consumer import LiveConsumer

_CONSUMER: Any = LiveConsumer.as_asgi()
_DEFAULT_PORTS = {"http": "80", "https": "443"}


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Serves `/live`. A handshake from another site's page is refused with 403 before anyone is asked who they are."""
    try:
        allowed = _may_open(scope)
    except RemitError:
        allowed = False
    if not allowed:
        await refuse(scope, receive, send)
        return
    await _CONSUMER(scope, receive, send)


async def refuse(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - an ASGI application
    """Close before accepting: servers answer the handshake with 403. For sockets that nobody serves, too."""
    await receive()
    await send({"type": "websocket.close", "code": 1008, "reason": "not from here"})


def _may_open(scope: Scope) -> bool:
    """Browsers send Origin and our cookie from any page, so the page must be ours: of PUBLIC_URL, or of the very host
    and port that was asked. Programs without an Origin bring a token, which no browser adds by itself."""
    origin = header(scope, "origin")
    if origin is None:
        return bearer_of(scope) is not None
    host = header(scope, "host") or ""
    domain, _ = split_domain_port(host.lower())
    page, public = _origin(origin), _origin(settings.CONFIG.public_url)
    if page is None:
        return False
    if page == public:
        return True
    asked = _origin(f"{page[0]}://{host}")
    return page == asked and bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)


def _origin(address: str) -> tuple[str, str, str] | None:
    """(scheme, host, port) of an http address; None for anything else, “null” included."""
    try:
        parts = urlsplit(address.lower())
        port = str(parts.port) if parts.port else _DEFAULT_PORTS.get(parts.scheme, "")
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port
