"""The one ASGI application: what a program in a sandbox, which comes by a unix socket, reaches of it and what not."""

from __future__ import annotations

import json
from typing import Any

import pytest


async def ask(path: str, *, method: str = "GET", client: tuple[str, int] | None = None) -> tuple[int, Any]:
    from controlplane.asgi import application

    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1:8020")],
        "client": client,
        "server": ("/run/remit/gateway/web.sock", None),
    }
    await application(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize(
    "path", ["/", "/accounts/login/", "/sign-in/abc", "/missions", "/metrics", "/readyz", "/static/remit/icons.svg"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_sandbox_reaches_neither_sign_in_nor_pages_nor_metrics(path: str, method: str) -> None:
    status, body = await ask(path, method=method)
    assert (status, json.loads(body)["code"]) == (404, "page.not_found")


@pytest.mark.parametrize(("path", "status"), [("/healthz", 200), ("/api/v1/actions", 401), ("/mcp", 503)])
async def test_a_sandbox_reaches_the_gateway(path: str, status: int) -> None:
    assert (await ask(path))[0] == status
