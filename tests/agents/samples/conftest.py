"""A built book, a loopback MCP server that enforces a sample's grants, and a way to run a sample program against it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import mcp.types as types
import pytest
import uvicorn
from mcp import Client
from mcp.server.lowlevel import Server
from starlette.responses import Response

from agents.samples.receivables import mission as receivables
from agents.samples.receivables.accounts import Accounts
from agents.samples.receivables.book import Book, build
from agents.samples.receivables.books_server import books_server
from agents.samples.terms import PROGRAMS, Criterion, Effect, Grant

TODAY = date(2026, 11, 23)
TOKEN = "rmt_run_sample_token"


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return build(tmp_path / "book", today=TODAY)


@pytest.fixture
def accounts(book: Book) -> Accounts:
    return Accounts(book.database, book.documents, today=TODAY)


@dataclass
class Ledgered:
    """One governed call as the server saw it. `consumed` guards the permit's single use."""

    id: str
    tool: str
    arguments: dict[str, Any]
    verdict: str
    reason: str = ""
    state: str = ""
    message: str = ""
    replaced_by: str = ""
    consumed: bool = False
    why: str = ""
    polls: int = 0
    asked: str = ""
    answers: list[str] = field(default_factory=list)


@dataclass
class GoverningServer:
    """Enforces grants, escalates, and stops repetition, over real tools. Keeps what happened, in order."""

    goal: str
    criteria: Sequence[Criterion]
    grants: Sequence[Grant]
    tools: dict[str, Callable[[dict[str, Any]], Any]]
    decide: Callable[[Ledgered], str] = lambda action: "permitted"
    polls_before_decision: int = 2
    calls: list[Ledgered] = field(default_factory=list)
    progress: dict[int, str] = field(default_factory=dict)
    finished: list[dict[str, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    before_call: Callable[[str, dict[str, Any]], dict[str, Any] | None] = lambda tool, arguments: None
    revoked: bool = False
    url: str = ""

    def edit(self, action: Ledgered, **changes: Any) -> str:
        """A person puts another call in its place and agrees to that: the first one ends as withdrawn, as in Remit."""
        made = Ledgered(str(uuid.uuid4()), action.tool, {**action.arguments, **changes}, "escalate", state="permitted")
        self.calls.append(made)
        action.replaced_by, action.message = made.id, "A person changed this before agreeing to it"
        return "withdrawn"

    def verdicts(self, tool: str) -> list[str]:
        return [call.verdict for call in self.calls if call.tool == tool]

    async def list_tools(self, _context: Any, _params: Any) -> types.ListToolsResult:
        granted = sorted({grant.tool for grant in self.grants})
        own = ["remit__action", "remit__answer", "remit__finish", "remit__mission", "remit__progress"]
        return types.ListToolsResult(
            tools=[types.Tool(name=name, input_schema={"type": "object"}) for name in granted + own]
        )

    async def call_tool(self, _context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        arguments = dict(params.arguments or {})
        if params.name.startswith("remit__"):
            return _result(self._own(params.name, arguments))
        early = self.before_call(params.name, arguments)
        if early is not None:
            return _refusal(**early)
        return await self._governed(params.name, arguments, dict(params.meta or {}))

    def _own(self, name: str, arguments: dict[str, Any]) -> Any:
        match name:
            case "remit__mission":
                criteria = [
                    {
                        "position": index,
                        "text": one.text,
                        "done": index in self.progress,
                    }
                    for index, one in enumerate(self.criteria)
                ]
                waiting = [
                    {"id": call.id, "tool": call.tool, "arguments": call.arguments}
                    for call in self.calls
                    if call.state == "waiting"
                ]
                return {"goal": self.goal, "criteria": criteria, "waiting": waiting}
            case "remit__progress":
                assert arguments["state"] == "claimed"
                self.progress[arguments["position"]] = arguments["evidence"]
                return {"saved": True}
            case "remit__answer":
                asked = next(call for call in self.calls if call.id == arguments["id"])
                assert arguments["question"] == f"about {asked.id}"
                asked.answers.append(arguments["text"])
                return {"answered": True}
            case "remit__finish":
                self.finished.append(arguments)
                return {"saved": True}
            case _:
                return self._action(arguments["id"])

    def _action(self, identifier: str) -> dict[str, Any]:
        action = next(call for call in self.calls if call.id == identifier)
        action.polls += 1
        if action.state == "waiting" and action.polls > self.polls_before_decision:
            action.state = self.decide(action)
        return {
            "id": action.id,
            "state": action.state,
            "message": action.message,
            "arguments": action.arguments,
            "replaced_by": {"id": action.replaced_by} if action.replaced_by else None,
            "questions": [{"id": f"about {action.id}", "text": action.asked, "open": not action.answers}]
            if action.asked
            else [],
        }

    async def _governed(self, tool: str, arguments: dict[str, Any], meta: dict[str, Any]) -> types.CallToolResult:
        call = Ledgered(str(uuid.uuid4()), tool, arguments, "allow", why=meta.get("remit/justification", ""))
        redeems = meta.get("remit/action")
        if redeems is not None:
            permitted = next(known for known in self.calls if known.id == redeems)
            if permitted.state != "permitted" or permitted.consumed or permitted.arguments != arguments:
                return _refusal(reason_code="permit.unusable", message="This permit is not for this call.")
            permitted.consumed = True
        else:
            call.verdict, call.reason = self._judge(tool, arguments)
        self.calls.append(call)
        if call.verdict == "deny":
            return _refusal(id=call.id, reason_code=call.reason, message=f"Refused: {call.reason}")
        if call.verdict == "escalate":
            call.state = "waiting"
            expires = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
            return _refusal(
                id=call.id,
                verdict="escalate",
                reason_code=call.reason,
                message="A person has to agree.",
                escalation={"id": str(uuid.uuid4()), "url": "/approvals", "expires_at": expires},
            )
        outcome = self.tools[tool](arguments)
        result = await outcome if asyncio.iscoroutine(outcome) else outcome
        call.message = json.dumps(result.structured_content) or str(result.content)
        if result.is_error:
            call.state = "failed"
        return result

    def _judge(self, tool: str, arguments: dict[str, Any]) -> tuple[str, str]:
        grants = [grant for grant in self.grants if grant.tool == tool]
        if not grants:
            return "deny", "grant.tool_not_granted"
        repeated = [call for call in self.calls[-3:] if call.tool == tool and call.arguments == arguments]
        if len(repeated) == 3 and len({call.message for call in repeated}) == 1:
            return "deny", "guard.repeated_call"
        fitting = {grant.effect for grant in grants if fits(grant, arguments)}
        if Effect.ALLOW in fitting:
            return "allow", ""
        return ("escalate", "grant.argument_above_limit") if fitting else ("deny", "grant.argument_outside")


def fits(grant: Grant, arguments: dict[str, Any]) -> bool:
    return all(
        name in arguments and _satisfies(arguments[name], rule, bound)
        for name, rules in grant.constraints.items()
        for rule, bound in rules.items()
    )


def _satisfies(value: Any, rule: str, bound: Any) -> bool:
    if rule in ("min", "max"):
        try:
            number, limit = Decimal(str(value)), Decimal(str(bound))
        except InvalidOperation:
            return False
        return number >= limit if rule == "min" else number <= limit
    if isinstance(value, str) and ".." in value.split("/"):
        return False
    return {
        "equals": lambda: value == bound,
        "one_of": lambda: value in bound,
        "starts_with": lambda: str(value).startswith(bound),
        "like": lambda: fnmatchcase(str(value), bound),
        "max_length": lambda: len(str(value)) <= bound,
    }[rule]()


def _result(data: dict[str, Any]) -> types.CallToolResult:
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=json.dumps(data))], structured_content=data
    )


def _refusal(*, message: str, verdict: str = "deny", **more: Any) -> types.CallToolResult:
    said = {
        "id": None,
        "remedies": [],
        "permit": None,
        "escalation": None,
        **more,
        "verdict": verdict,
        "message": message,
    }
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=message)], structured_content=said, is_error=True
    )


def book_tools(book: Book) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Every tool of the books server, and of the stock SQLite server what the clerk may see."""
    server = books_server(Accounts(book.database, book.documents, today=TODAY))

    def through(name: str) -> Callable[[dict[str, Any]], Any]:
        async def call(arguments: dict[str, Any]) -> Any:
            async with Client(server) as client:
                return await client.call_tool(name, arguments)

        return call

    def read_query(arguments: dict[str, Any]) -> types.CallToolResult:
        connection = sqlite3.connect(book.database)
        connection.row_factory = sqlite3.Row
        try:
            rows = [dict(row) for row in connection.execute(arguments["query"])]
        finally:
            connection.close()
        # As the stock server answers: a Python literal in a text block.
        return types.CallToolResult(content=[types.TextContent(type="text", text=str(rows))])

    names = ("overdue", "customer", "search", "apply_credit", "write_reminder", "outbox", "attachment")
    return {**{f"books__{name}": through(name) for name in names}, "sqlite__read_query": read_query}


@pytest.fixture
def serve() -> Iterator[Callable[[GoverningServer], GoverningServer]]:
    """Put a governing server on a free loopback port; it stops with the test."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(governing: GoverningServer) -> GoverningServer:
        low = Server("governing", on_list_tools=governing.list_tools, on_call_tool=governing.call_tool)
        application = low.streamable_http_app(stateless_http=True, json_response=True)

        async def guarded(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await application(scope, receive, send)
                return
            headers = dict(scope["headers"])
            if governing.revoked or headers.get(b"authorization") != f"Bearer {TOKEN}".encode():
                await Response("unauthorised", 401)(scope, receive, send)
                return
            fault = governing.faults.pop(0) if governing.faults and headers.get(b"mcp-method") == b"tools/call" else ""
            if fault == "busy":
                await Response("busy", 503)(scope, receive, send)
            elif fault == "lost answer":

                async def nowhere(_message: Any) -> None:
                    return

                await application(scope, receive, nowhere)
                await Response("gone", 502)(scope, receive, send)
            else:
                await application(scope, receive, send)

        server = uvicorn.Server(uvicorn.Config(guarded, port=0, log_level="critical", lifespan="on"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        _wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        governing.url = f"http://127.0.0.1:{port}"
        running.append((server, thread))
        return governing

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(timeout=10)


@dataclass
class Run:
    """A sample program as a real process."""

    process: subprocess.Popen[str]

    def wait(self, seconds: float = 60) -> tuple[int, str]:
        try:
            output, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            output, _ = self.process.communicate()
            pytest.fail(f"the agent did not end within {seconds} s:\n{output[-3000:]}")
        return self.process.returncode, output

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def start_agent() -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start(*arguments: str, url: str, token: str = TOKEN, pace: str = "0", **variables: str) -> Run:
        command = [sys.executable, "-I", "-W", "error::RuntimeWarning", str(PROGRAMS), *arguments]
        settings = {"REMIT_URL": url, "REMIT_TOKEN": token, "REMIT_SAMPLE_PACE": pace}
        environment = {"PATH": os.environ["PATH"], **settings, **variables}
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/"
        )
        runs.append(Run(process))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.kill()


def _wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    waited = threading.Event()
    deadline = datetime.now(UTC) + timedelta(seconds=seconds)
    while not condition():
        if datetime.now(UTC) > deadline:
            pytest.fail("the server did not start")
        waited.wait(0.02)


@pytest.fixture
def wait_until() -> Callable[..., None]:
    return _wait_until


@pytest.fixture
def governing(serve: Callable[[GoverningServer], GoverningServer]) -> Callable[..., GoverningServer]:
    """A served governing server for a sample's mission module, over the given tools."""

    def start(mission: Any, tools: dict[str, Callable[[dict[str, Any]], Any]]) -> GoverningServer:
        return serve(GoverningServer(goal=mission.GOAL, criteria=mission.CRITERIA, grants=mission.GRANTS, tools=tools))

    return start


@pytest.fixture
def book_server(book: Book, governing: Callable[..., GoverningServer]) -> GoverningServer:
    return governing(receivables, book_tools(book))
