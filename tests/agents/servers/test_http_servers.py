"""Upstream servers over streamable HTTP: stock servers of each generation, and some that answer as they please."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from mcp.server import MCPServer

from agents.choices import Transport
from agents.servers.links import HttpLink, NotSent, Refused
from agents.servers.pool import SessionPool
from agents.servers.presenting import Presenter
from agents.servers.types import Limits, Listing, PinnedTool, RunContext, ServerAddress, ServerFault, UpstreamKind
from controlplane.config import configuration

FAST = Limits(connect_seconds=5, call_seconds=2)
NO_HEADERS: dict[str, str] = {}


@pytest.fixture(autouse=True)
def loopback_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration(), "mcp_allow_loopback", True)


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Any], Awaitable[str]]]:
    """`await serve(asgi_application)` → its address on a free loopback port."""
    stack = contextlib.AsyncExitStack()

    async def start(application: Any) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        config = uvicorn.Config(
            application, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())

        async def stop() -> None:
            server.should_exit = True
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(task, 10)

        stack.push_async_callback(stop)
        while not server.started:
            assert not task.done()
            await asyncio.sleep(0.02)
        return f"http://127.0.0.1:{port}/mcp"

    async with stack:
        yield start


def answering(reply: Callable[[dict[str, Any]], tuple[int, dict[str, str], bytes]]) -> Any:
    """An HTTP server that answers every POST with what `reply` makes of the message."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
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
        status, headers, content = reply(json.loads(body))
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": content})

    return application


def message(**fields: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"content-type": "application/json"}, json.dumps({"jsonrpc": "2.0", **fields}).encode()


async def ask(url: str, limits: Limits = FAST) -> Any:
    link = HttpLink(url, limits)
    try:
        return await link.request("tools/call", {}, seconds=limits.call_seconds, headers=NO_HEADERS)
    finally:
        await link.close()


def stock_server() -> MCPServer:
    server = MCPServer("stock")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    return server


@pytest.mark.parametrize(("stateless", "known"), [(True, ""), (False, ""), (True, "2025-11-25"), (False, "2025-11-25")])
async def test_a_stock_server_is_listed_and_called(
    serve: Callable[[Any], Awaitable[str]], stateless: bool, known: str
) -> None:
    url = await serve(stock_server().streamable_http_app(stateless_http=stateless))
    address = ServerAddress(uuid.uuid4(), uuid.uuid4(), "stock", Transport.HTTP, url=url, protocol_version=known)
    seen: list[Listing] = []

    async def on_listing(_: ServerAddress, listing: Listing) -> None:
        seen.append(listing)

    async def which_ended(_: Any) -> Any:
        return []

    pool = SessionPool(on_listing=on_listing, which_ended=which_ended, limits=FAST)
    context = RunContext(uuid.uuid4(), uuid.uuid4())
    unknown = PinnedTool(uuid.uuid4(), address, "add", "stock__add", "")
    assert (await pool.call_upstream(context, unknown, b"{}")).reason_code == "tool.definition_changed"
    tool = PinnedTool(uuid.uuid4(), address, "add", "stock__add", seen[0].tools[0].sha256)
    result = await pool.call_upstream(context, tool, b'{"a":2,"b":3}')
    await pool.close()
    assert result.kind is UpstreamKind.RESULT, result.message
    assert result.content["content"][0]["text"] == "5"
    assert seen[0].protocol_version == (known or "2026-07-28")


async def test_an_answer_with_another_id_is_not_taken(serve: Callable[[Any], Awaitable[str]]) -> None:
    url = await serve(answering(lambda request: message(id=request["id"] + 1, result={})))
    with pytest.raises(ServerFault) as caught:
        await ask(url)
    assert caught.value.code == "upstream.wrong_id"


async def test_an_event_with_another_id_is_passed_over(serve: Callable[[Any], Awaitable[str]]) -> None:
    def reply(request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        other = json.dumps({"jsonrpc": "2.0", "id": request["id"] + 1, "result": {"for": "another"}})
        mine = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": {"for": "me"}})
        return 200, {"content-type": "text/event-stream"}, f"data: {other}\n\ndata: {mine}\n\n".encode()

    assert await ask(await serve(answering(reply))) == {"for": "me"}


async def test_a_stream_that_ends_without_an_answer_leaves_it_unknown(serve: Callable[[Any], Awaitable[str]]) -> None:
    url = await serve(answering(lambda _: (200, {"content-type": "text/event-stream"}, b": nothing\n\n")))
    with pytest.raises(ServerFault) as caught:
        await ask(url)
    assert caught.value.code == "upstream.died"
    assert not isinstance(caught.value, NotSent)


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/html"])
async def test_a_flood_is_not_read_to_its_end(serve: Callable[[Any], Awaitable[str]], kind: str) -> None:
    url = await serve(answering(lambda _: (200, {"content-type": kind}, b"data: " + b"x" * (50 << 20))))
    with pytest.raises(ServerFault) as caught:
        await ask(url)
    assert caught.value.code == "upstream.result_too_large"


@pytest.mark.parametrize(
    ("status", "kind", "body", "code", "sent"),
    [
        (200, "text/html", b"<h1>It works</h1>", "upstream.garbage", True),
        (200, "application/json", b"{not json", "upstream.garbage", True),
        (200, "application/json", b"[]", "upstream.garbage", True),
        (200, "application/json", b'{"jsonrpc":"2.0","id":1}', "upstream.garbage", True),
        (500, "text/plain", b"oops", "upstream.server_error", True),
        (429, "text/plain", b"slow down", "upstream.rejected", False),
        (401, "text/plain", b"who are you", "upstream.rejected", False),
        (302, "text/plain", b"", "upstream.redirected", False),
    ],
)
async def test_unusable_answers_have_names_and_say_whether_it_may_have_happened(
    serve: Callable[[Any], Awaitable[str]], status: int, kind: str, body: bytes, code: str, sent: bool
) -> None:
    headers = {"content-type": kind, **({"location": "http://169.254.169.254/"} if status == 302 else {})}
    url = await serve(answering(lambda _: (status, headers, body)))
    with pytest.raises(ServerFault) as caught:
        await ask(url)
    assert caught.value.code == code
    assert isinstance(caught.value, NotSent) is not sent


async def test_an_error_in_the_body_of_an_http_error_is_the_servers_answer(
    serve: Callable[[Any], Awaitable[str]],
) -> None:
    def reply(request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        _, headers, body = message(id=request["id"], error={"code": -32602, "message": "no such tool"})
        return 400, headers, body

    with pytest.raises(Refused) as caught:
        await ask(await serve(answering(reply)))
    assert (caught.value.code, caught.value.message) == (-32602, "no such tool")


async def test_a_compressed_body_is_refused(serve: Callable[[Any], Awaitable[str]]) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    url = await serve(answering(lambda _: (200, headers, b"\x1f\x8b")))
    with pytest.raises(ServerFault) as caught:
        await ask(url)
    assert caught.value.code == "upstream.garbage"


async def test_a_port_where_nobody_listens_was_never_reached() -> None:
    with pytest.raises(NotSent) as caught:
        await ask("http://127.0.0.1:9/mcp")
    assert caught.value.code == "upstream.unreachable"


async def test_a_slow_drip_ends_at_the_deadline(serve: Callable[[Any], Awaitable[str]]) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        with contextlib.suppress(OSError):
            for _ in range(100):
                await send({"type": "http.response.body", "body": b" ", "more_body": True})
                await asyncio.sleep(0.05)

    with pytest.raises(ServerFault) as caught:
        await ask(await serve(application), Limits(call_seconds=0.5))
    assert caught.value.code == "upstream.timeout"


async def test_a_refused_notification_does_not_tell_the_servers_address(serve: Callable[[Any], Awaitable[str]]) -> None:
    url = await serve(answering(lambda _: (401, {}, b"")))
    link = HttpLink(f"{url}?key=Zk3vQ9sPw2xLr7Yt", FAST)
    with pytest.raises(ServerFault, match="HTTP status 401") as caught:
        await link.notify("notifications/initialized", None, headers=NO_HEADERS)
    await link.close()
    assert "Zk3vQ9" not in caught.value.message


async def test_a_header_that_is_none_is_not_quoted_with_the_credential_in_it() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        shown = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"authorization"))
        writer.write(b"HTTP/1.1 200 OK\r\nbad header " + shown.partition(b":")[2] + b"\r\n\r\n")
        writer.close()

    class Shows(Presenter):
        async def headers(self) -> dict[str, str]:
            self._secrets.add("Zk3vQ9sPw2xLr7Yt")
            return {"authorization": "Bearer Zk3vQ9sPw2xLr7Yt"}

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
        address = ServerAddress(uuid.uuid4(), uuid.uuid4(), "echo", Transport.HTTP, url=url)
        link = HttpLink(url, FAST, Shows(address))
        with pytest.raises(ServerFault) as caught:
            await link.request("tools/call", {}, seconds=2, headers=NO_HEADERS)
        await link.close()
    assert "[removed]" in caught.value.message
    assert "Zk3vQ9" not in caught.value.message
