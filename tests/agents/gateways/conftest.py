"""A live gateway and a live upstream server on loopback ports, and a mission of Alice's whose token reaches them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeVar

import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from agents import services
from agents.choices import Runtime, Transport
from agents.gateways.mcp import McpGateway
from agents.grants import Grant
from agents.models import McpServer, Mission
from agents.servers import services as registry
from agents.servers.types import Limits
from agents.services.onboarding import Person, create_organisation
from budgets.types import Limits as Money
from controlplane.common.clock import now
from controlplane.config import configuration
from controlplane.tenancy import services as tenancy
from controlplane.tenancy.models import Organisation, Team, User
from controlplane.tenancy.types import Principal, Role

from .rest_client import Api

R = TypeVar("R")
FAST = Limits(connect_seconds=5, call_seconds=1.0)


class Servers:
    """Uvicorn servers in one background thread with a loop of its own, so that tests can use the database plainly."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._running: list[tuple[uvicorn.Server, Any]] = []

    def start(self, application: Any) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=port, log_level="warning"))
        server.config.timeout_graceful_shutdown = 1
        done = asyncio.run_coroutine_threadsafe(server.serve(), self._loop)
        self._running.append((server, done))
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline
            assert not done.done(), done.exception()
            time.sleep(0.02)
        return f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        for server, done in reversed(self._running):
            server.should_exit = True
            with contextlib.suppress(BaseException):
                done.result(15)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


@pytest.fixture
def servers(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    monkeypatch.setattr(configuration(), "mcp_allow_loopback", True)
    running = Servers()
    yield running
    running.stop()


@dataclass
class Upstream:
    """An MCP server of the older generation that counts its calls; tests change its tools and its manners."""

    tools: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    behave: Callable[[str, dict[str, Any]], Any] | None = None

    def offer(self, name: str, *, description: str = "", schema: dict[str, Any] | None = None, **more: Any) -> None:
        self.tools[name] = {
            "name": name,
            "description": description or f"The tool {name}.",
            "inputSchema": schema or {"type": "object", "properties": {}, "additionalProperties": True},
            **more,
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request = json.loads(body) if body else {}
        answer = await self._answer(request)
        status = 202 if answer is None else 200
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]}
        )
        await send({"type": "http.response.body", "body": json.dumps(answer).encode() if answer else b""})

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any] | None:
        if "id" not in request:
            return None
        result: Any
        match request["method"]:
            case "initialize":
                info = {"name": "upstream", "version": "1"}
                result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
            case "tools/list":
                result = {"tools": list(self.tools.values())}
            case "tools/call":
                name, arguments = request["params"]["name"], request["params"].get("arguments", {})
                self.calls.append((name, arguments))
                result = self.behave(name, arguments) if self.behave else None
                if asyncio.iscoroutine(result):
                    result = await result
                if result is None:
                    result = {"content": [{"type": "text", "text": json.dumps(arguments, sort_keys=True)}]}
            case _:
                error = {"code": -32601, "message": "Method not found"}
                return {"jsonrpc": "2.0", "id": request["id"], "error": error}
        return {"jsonrpc": "2.0", "id": request["id"], "result": result}


@pytest.fixture
def upstream() -> Upstream:
    server = Upstream()
    credit = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in ("invoice", "amount", "reason")},
        "required": ["invoice", "amount"],
        "additionalProperties": False,
    }
    server.offer("apply_credit", schema=credit)
    server.offer("overdue")
    server.offer("delete_everything")
    return server


@pytest.fixture
def company(transactional_db: None) -> Organisation:
    return create_organisation(
        name="Northwind",
        currency="USD",
        monthly_limit=Money(money=Decimal(100)),
        teams={"Finance": Money(money=Decimal(50))},
        people=(
            Person("alice@northwind.example", "Alice", (Role.ADMIN,), None),
            Person("bob@northwind.example", "Bob", (Role.APPROVER,), "Finance"),
        ),
    )


def _person(company: Organisation, name: str) -> Principal:
    user = User.objects.get(email=f"{name}@northwind.example")
    principal = tenancy.principal_of_user(user=user, organisation_id=company.pk)
    assert principal is not None
    return principal


@pytest.fixture
def owner(company: Organisation) -> Principal:
    return _person(company, "alice")


@pytest.fixture
def approver(company: Organisation) -> Principal:
    return _person(company, "bob")


@pytest.fixture
def books(servers: Servers, upstream: Upstream, owner: Principal) -> McpServer:
    """The upstream server, registered and listed."""
    row = registry.register_server(
        actor=owner, name="Books", slug="books", transport=Transport.HTTP, url=f"{servers.start(upstream)}/mcp"
    )
    refreshed = registry.refresh_tools(actor=owner, server_id=row.pk)
    assert refreshed.fault == ""
    row.refresh_from_db()
    return row


GRANTS = (
    Grant("books__overdue"),
    Grant("books__apply_credit", constraints={"amount": {"min": "0.01", "max": "100.00"}}),
    Grant("books__apply_credit", effect="escalate", constraints={"amount": {"min": "0.01", "max": "500.00"}}),
)


@pytest.fixture
def grants() -> tuple[Grant, ...]:
    return GRANTS


@pytest.fixture
def mission(books: McpServer, owner: Principal, company: Organisation, grants: tuple[Grant, ...]) -> Mission:
    team = Team.objects.get(organisation=company)
    clerk = services.register_agent(actor=owner, team_id=team.pk, name="Clerk", runtime=Runtime.EXTERNAL)
    remit = services.Remit(
        goal="Every overdue invoice has a reminder.",
        criteria=["Reminders are written", "Credits are explained"],
        grants=grants,
        budget_money=Decimal("1.00"),
        budget_steps=100,
        deadline=now() + timedelta(hours=8),
    )
    drafted = services.draft_mission(actor=owner, agent_id=clerk.pk, title="Chase invoices", remit=remit)
    services.submit_mission(actor=owner, mission_id=drafted.pk)
    drafted.refresh_from_db()
    assert drafted.state == "active"
    return drafted


@pytest.fixture
def token(owner: Principal, mission: Mission) -> str:
    return services.issue_run_token(actor=owner, mission_id=mission.pk)


class Application:
    """The gateway with the lifespan an ASGI server expects, as the product mounts it."""

    def __init__(self, gateway: McpGateway) -> None:
        self._gateway = gateway

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self._gateway(scope, receive, send)
            return
        await receive()
        async with self._gateway.lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


@pytest.fixture
def gateway_url(servers: Servers, company: Organisation) -> str:
    return f"{servers.start(Application(McpGateway(FAST)))}/mcp"


class Agent:
    """A stock MCP client with one run's token."""

    def __init__(self, url: str, token: str, mode: str) -> None:
        self._url, self._token, self._mode = url, token, mode

    def do(self, story: Callable[[Client], Coroutine[Any, Any, R]]) -> R:
        async def whole() -> R:
            async with self.client() as client:
                return await story(client)

        return asyncio.run(whole())

    def tools(self) -> list[str]:
        async def story(client: Client) -> list[str]:
            return [tool.name for tool in (await client.list_tools()).tools]

        return self.do(story)

    def call(self, tool: str, arguments: dict[str, Any] | None = None, **meta: Any) -> Any:
        async def story(client: Client) -> Any:
            named = {f"remit/{key.replace('_', '-')}": value for key, value in meta.items()}
            return await client.call_tool(tool, arguments or {}, meta=named or None)  # type: ignore[arg-type]

        return self.do(story)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {self._token}"}
        async with httpx2.AsyncClient(headers=headers, timeout=40, trust_env=False) as http:
            transport = streamable_http_client(self._url, http_client=http)
            async with Client(transport, mode=self._mode) as client:
                yield client


@pytest.fixture
def make_agent_client(gateway_url: str) -> Callable[..., Agent]:
    def make(token: str, mode: str = "auto") -> Agent:
        return Agent(gateway_url, token, mode)

    return make


@pytest.fixture
def agent(make_agent_client: Callable[..., Agent], token: str) -> Agent:
    return make_agent_client(token)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: Any


@pytest.fixture
def post(gateway_url: str, token: str) -> Callable[..., Reply]:
    """One raw POST, for what no well-behaved client would send."""

    def send(
        body: bytes | dict[str, Any] | list[Any], *, method: str = "POST", path: str = "", **headers: str
    ) -> Reply:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        defaults = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }
        request = urllib.request.Request(gateway_url + path, data=raw, method=method, headers={**defaults, **named})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=20) as response:
                return Reply(response.status, dict(response.headers), _json(response.read()))
        except urllib.error.HTTPError as error:
            return Reply(error.code, dict(error.headers), _json(error.read()))

    return send


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")


@pytest.fixture
def address(servers: Any, company: Organisation) -> str:
    from controlplane.asgi import application

    return str(servers.start(application))


@pytest.fixture
def api(address: str, token: str) -> Api:
    return Api(address, token)
