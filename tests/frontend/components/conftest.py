"""Real templates rendered for a signed-in person, and served to Chromium behind the real Content-Security-Policy."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from csp.utils import build_policy
from django.contrib.auth.models import AnonymousUser
from django.contrib.messages.storage.cookie import CookieStorage
from django.http import HttpRequest
from django.template import engines
from django.test import RequestFactory

from controlplane.tenancy.types import ALL_TEAMS, Principal, PrincipalKind, Role
from frontend import context

STATIC = Path(__file__).parents[3] / "frontend" / "static"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@pytest.fixture(autouse=True)
def _plain_static_names(settings: Any) -> None:
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest.fixture(autouse=True)
def _no_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product's own warnings read the database, which the components here do without."""
    monkeypatch.setattr(context, "_strip_sources", [])
    monkeypatch.setattr(context, "_current_strip_sources", [])


@pytest.fixture
def finn() -> Principal:
    return Principal(
        kind=PrincipalKind.USER,
        id=uuid.uuid4(),
        user_id=uuid.uuid4(),
        name="Finn",
        organisation_id=uuid.uuid4(),
        organisation_name="Northwind",
        roles={Role.FINANCE: ALL_TEAMS},
        time_zone="Europe/Berlin",
    )


@pytest.fixture
def a_request(finn: Principal, db: None) -> Callable[..., HttpRequest]:
    """A GET by Finn; `principal=None` for nobody. The frame counts the notices of whoever it is."""

    def make(
        path: str = "/", *, principal: Principal | None = finn, cookies: dict[str, str] | None = None, **headers: str
    ) -> HttpRequest:
        request = RequestFactory(headers=headers).get(path)
        request.COOKIES.update(cookies or {})
        request.user = AnonymousUser()
        request.principal = principal  # type: ignore[attr-defined]
        request._messages = CookieStorage(request)  # type: ignore[attr-defined]
        return request

    return make


@pytest.fixture
def rendered(a_request: Callable[..., HttpRequest]) -> Callable[..., str]:
    """Template source rendered with the real engine, builtins and context processors."""

    def render(source: str, context: dict[str, Any] | None = None, request: HttpRequest | None = None) -> str:
        return engines["django"].from_string(source).render(context or {}, request or a_request())

    return render


@pytest.fixture
def served(settings: Any) -> Iterator[Callable[[dict[str, Any]], str]]:
    """Serves pages (path → HTML, or a function of nothing) and the static files; returns the address."""
    servers: list[ThreadingHTTPServer] = []

    def serve(pages: dict[str, Any]) -> str:
        policy = build_policy(config=settings.CONTENT_SECURITY_POLICY["DIRECTIVES"])
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Pages, pages, policy))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


class _Pages(BaseHTTPRequestHandler):
    def __init__(self, pages: dict[str, Any], policy: str, *arguments: Any) -> None:
        self.pages, self.policy = pages, policy
        super().__init__(*arguments)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/static/"):
            file = STATIC / path.removeprefix("/static/")
            if file.is_file():
                return self._answer(200, TYPES[file.suffix], file.read_bytes())
        page = self.pages.get(path)
        if page is None:
            return self._answer(404, "text/plain", b"")
        return self._answer(200, "text/html; charset=utf-8", (page() if callable(page) else page).encode())

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", self.policy)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
