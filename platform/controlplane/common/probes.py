"""`/healthz`, `/readyz` and `/metrics`: one ASGI function, and Django views for a site that runs WSGI."""

from __future__ import annotations

import asyncio
import hmac
import json
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import path

from controlplane.common import health, metrics
from controlplane.common.http import Receive, Scope, Send, bearer_of, edge, header, send_response

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})
_PLAIN: Final = "text/plain; charset=utf-8"


@edge("probes")
async def asgi(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - no body is read
    """Answers before Django: no host check, no session, no middleware, whatever else this process is busy with."""
    peer = scope["client"][0] if scope.get("client") else ""
    forwarded = any(header(scope, name) is not None for name in ("x-forwarded-for", "forwarded", "x-real-ip"))
    answer = await asyncio.to_thread(_answer, scope["path"], scope["method"], peer, forwarded, bearer_of(scope))
    await send_response(send, *answer)


def view(request: HttpRequest) -> HttpResponse:
    """The same for Django, where no ASGI stands in front."""
    forwarded = any(name in request.META for name in ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP"))
    scheme, _, credential = request.headers.get("Authorization", "").partition(" ")
    token = credential.strip() if scheme.lower() == "bearer" else None
    status, body, kind = _answer(
        request.path, request.method or "", request.META.get("REMOTE_ADDR", ""), forwarded, token
    )
    return HttpResponse(body, status=status, content_type=kind, headers={"Cache-Control": "no-store"})


urlpatterns = [path("healthz", view), path("readyz", view), path("metrics", view)]


def _answer(route: str, method: str, peer: str, forwarded: bool, token: str | None) -> tuple[int, bytes, str]:
    if method not in ("GET", "HEAD"):
        return 405, b"Only GET is served here.\n", _PLAIN
    match route.rstrip("/"):
        case "/healthz":
            return 200, b'{"status": "ok"}', "application/json"
        case "/readyz":
            return _readiness()
        case "/metrics" if _may_scrape(peer, forwarded, token):
            return 200, metrics.render(), metrics.CONTENT_TYPE
        case "/metrics":
            return 401, b"Send the token of REMIT_METRICS_TOKEN, or ask from this machine.\n", _PLAIN
        case _:
            return 404, b"Not here.\n", _PLAIN


def _readiness() -> tuple[int, bytes, str]:
    results = health.readiness()
    ready = all(result.passed for result in results)
    checks = {result.name: {"passed": result.passed, "problem": result.problem} for result in results}
    body = json.dumps({"status": "ready" if ready else "not ready", "checks": checks}).encode()
    return 200 if ready else 503, body, "application/json"


def _may_scrape(peer: str, forwarded: bool, token: str | None) -> bool:
    """A right token; without any token sent, a client of this machine that no proxy speaks for.

    A sandbox reaches us through a unix socket and has no address: it is not of this machine.
    """
    expected = settings.CONFIG.metrics_token
    if token is not None:
        return bool(expected) and hmac.compare_digest(token.encode(), expected.encode())
    return peer in _LOOPBACK and not forwarded
