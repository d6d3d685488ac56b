"""Upstream servers as plain child processes, or on a thread, and a session pool over them. The sandbox is tried in its
own tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from agents.choices import Transport
from agents.models import McpServer
from agents.servers import services
from agents.servers.links import LineLink
from agents.servers.pool import SessionPool
from agents.servers.sessions import UpstreamSession
from agents.servers.types import Limits, Listing, PinnedTool, RunContext, ServerAddress
from controlplane.config import configuration
from controlplane.tenancy.types import Principal

PROGRAM = Path(__file__).with_name("hostile_stdio.py")
FAST = Limits(connect_seconds=10, call_seconds=1.0, idle_seconds=60)


class Bench:
    """A pool whose stdio servers are child processes of the test, with what the pool reported."""

    def __init__(self, generation: str, counter: Path, program: Path = PROGRAM, late_seconds: float = 0) -> None:
        self.server = ServerAddress(
            id=uuid.uuid4(), organisation_id=uuid.uuid4(), slug="odd", transport=Transport.STDIO, protocol_version=""
        )
        self.context = RunContext(run_id=uuid.uuid4(), mission_id=uuid.uuid4())
        self.listings: list[Listing] = []
        self.ended: set[uuid.UUID] = set()
        self.processes: list[asyncio.subprocess.Process] = []
        self.counter = counter
        self._argv = (str(program), generation, str(counter), str(late_seconds))
        self.pool = SessionPool(
            on_listing=self._on_listing, which_ended=self._which_ended, limits=FAST, opener=self._open
        )

    def tool(self, name: str, *, read_only: bool = False) -> PinnedTool:
        known = {tool.name: tool.sha256 for listing in self.listings for tool in listing.tools}
        return PinnedTool(uuid.uuid4(), self.server, name, f"odd__{name}", known.get(name, ""), read_only)

    async def meet(self) -> None:
        """Open the session once, so that the definitions are known."""
        await self.pool.call_upstream(self.context, self.tool("echo"), b"{}")

    async def call(self, name: str, arguments: bytes = b"{}", *, read_only: bool = False) -> Any:
        return await self.pool.call_upstream(self.context, self.tool(name, read_only=read_only), arguments)

    def calls_received(self) -> list[str]:
        return self.counter.read_text().split() if self.counter.exists() else []

    async def _open(self, server: ServerAddress, context: RunContext, limits: Limits) -> UpstreamSession:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", *self._argv,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        self.processes.append(process)
        session = UpstreamSession(server, LineLink(process.stdout, process.stdin, limits), limits, None)
        await session.negotiate()
        await session.list_tools()
        return session

    async def _on_listing(self, server: ServerAddress, listing: Listing) -> None:
        self.listings.append(listing)

    async def _which_ended(self, run_ids: Any) -> Any:
        return [run_id for run_id in run_ids if run_id in self.ended]


@pytest.fixture
async def make_bench(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Bench]]]:
    benches: list[Bench] = []

    async def make(
        generation: str = "2025-11-25", *, program: Path = PROGRAM, late_seconds: float = 0, **server: Any
    ) -> Bench:
        bench = Bench(generation, tmp_path / f"calls-{len(benches)}", program, late_seconds)
        bench.server = replace(bench.server, **server)
        benches.append(bench)
        await bench.meet()
        return bench

    yield make
    for bench in benches:
        await bench.pool.close()
        for process in bench.processes:
            if process.returncode is None:
                process.kill()
            # A pipe that nobody reads any more would keep `wait` from returning.
            process._transport.close()  # type: ignore[attr-defined]
            await process.wait()


@pytest.fixture
async def bench(make_bench: Callable[..., Awaitable[Bench]]) -> Bench:
    return await make_bench()


class Upstream:
    """A server of the handshake generation on a thread of its own, that says back which headers it was sent."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []
        self.token_requests: list[tuple[dict[str, str], str]] = []
        self.calls: list[dict[str, Any]] = []
        self.status = 0
        self.description = "Says what it was sent."
        self.annotations = {"readOnlyHint": True}
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                if self.path == "/token":
                    upstream.token_requests.append((headers, body.decode()))
                    self._answer({"access_token": "fetched-token-123", "token_type": "Bearer", "expires_in": 3600})
                    return
                upstream.seen.append(headers)
                if upstream.status:
                    self.send_response(upstream.status)
                    self.send_header("location", "http://127.0.0.1:1/elsewhere")
                    self.send_header("content-length", "0")
                    self.end_headers()
                    return
                message = json.loads(body)
                result: dict[str, Any] = {}
                if message["method"] == "server/discover":
                    self._answer({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "no"}})
                    return
                if message["method"] == "initialize":
                    result = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}
                elif message["method"] == "tools/list":
                    echo = {"name": "echo", "description": upstream.description, "inputSchema": {"type": "object"}}
                    result = {"tools": [{**echo, "annotations": upstream.annotations}]}
                elif message["method"] == "tools/call":
                    upstream.calls.append(message["params"])
                    result = {"content": [{"type": "text", "text": json.dumps(headers)}]}
                self._answer({"jsonrpc": "2.0", "id": message.get("id"), "result": result})

            def do_DELETE(self) -> None:
                self._answer({})

            def _answer(self, value: Any) -> None:
                content = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self._server.server_address[1]}"
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    monkeypatch.setattr(configuration(), "mcp_allow_loopback", True)
    with contextlib.closing(Upstream()) as started:
        yield started


@pytest.fixture
def far(as_nadia: Principal, upstream: Upstream) -> McpServer:
    return services.register_server(
        actor=as_nadia, name="Far", slug="far", transport=Transport.HTTP, url=f"{upstream.base}/mcp"
    )
