"""One ASGI application on one port: `/live`, `/mcp` and the hot machine ends are plain ASGI, the rest is Django by
a2wsgi.

Django's own ASGI handler costs several times its WSGI handler per request; measured in docs/benchmarks.md.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

import django

django.setup()

from a2wsgi import WSGIMiddleware  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402

from agents.gateways import rest  # noqa: E402
from agents.gateways.mcp import MCP  # noqa: E402
from controlplane.common import probes  # noqa: E402
from controlplane.common.checks import refuse_to_serve_unconfigured  # noqa: E402
from controlplane.common.collecting import keep_what_is_loaded  # noqa: E402
from controlplane.common.errors import not_found  # noqa: E402
from controlplane.common.http import edge  # noqa: E402
from controlplane.embedded.web_protocol import while_connected  # noqa: E402
from controlplane.live import routing as live  # noqa: E402

refuse_to_serve_unconfigured()

DJANGO = WSGIMiddleware(while_connected(get_wsgi_application()), workers=8)

# (scope type, exact path) → application. Paths are matched with and without a trailing slash.
ROUTES: dict[tuple[str, str], Any] = {
    ("http", "/mcp"): MCP,
    ("http", "/healthz"): probes.asgi,
    ("http", "/readyz"): probes.asgi,
    ("http", "/metrics"): probes.asgi,
    ("websocket", "/live"): live.application,
}
# (scope type, beginning of the path) → application, for ends that route below themselves.
PREFIXES: tuple[tuple[str, str, Any], ...] = (("http", rest.PREFIX, rest.actions),)
# What programs in a sandbox may ask for, besides actions: they come by a unix socket, without an address. Sign-in and
# pages are not theirs.
SANDBOX_PATHS = ("/mcp", "/healthz")
# Entered at startup in this order, left at shutdown in reverse.
LIFESPANS = (MCP.lifespan,)


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    await _route(scope["type"], scope["path"], from_sandbox=not scope.get("client"))(scope, receive, send)


def _route(kind: str, path: str, *, from_sandbox: bool) -> Any:
    if from_sandbox and not (path.rstrip("/") in SANDBOX_PATHS or path.startswith(rest.PREFIX)):
        return _nothing_here if kind == "http" else live.refuse
    exact = ROUTES.get((kind, path.rstrip("/")))
    if exact is not None:
        return exact
    fallback = DJANGO if kind == "http" else live.refuse
    return next((app for scope, prefix, app in PREFIXES if scope == kind and path.startswith(prefix)), fallback)


@edge("sandbox")
async def _nothing_here(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001 - an ASGI application
    raise not_found("page")


async def _lifespan(receive: Any, send: Any) -> None:
    await receive()
    try:
        async with AsyncExitStack() as stack:
            for lifespan in LIFESPANS:
                await stack.enter_async_context(lifespan())
            keep_what_is_loaded()
            await send({"type": "lifespan.startup.complete"})
            await receive()
    except Exception as error:
        await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
        raise
    await send({"type": "lifespan.shutdown.complete"})
