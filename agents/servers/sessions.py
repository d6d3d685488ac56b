"""One MCP session with an upstream server of either protocol generation: its introduction, its tools, its calls."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from typing import Any

import structlog
from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    encode_header_value,
    find_invalid_x_mcp_header,
    mcp_param_headers,
    x_mcp_header_map,
)
from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, PROTOCOL_VERSION_META_KEY
from mcp_types.version import (
    HANDSHAKE_PROTOCOL_VERSIONS,
    LATEST_HANDSHAKE_VERSION,
    LATEST_MODERN_VERSION,
    MODERN_PROTOCOL_VERSIONS,
)

from agents.choices import Transport
from agents.servers import sandboxes
from agents.servers.definitions import sort_out
from agents.servers.links import HttpLink, LineLink, Link, NotSent, Refused
from agents.servers.presenting import Presenter
from agents.servers.types import Limits, Listing, RunContext, ServerAddress, ServerFault

log = structlog.get_logger(__name__)

CLIENT_INFO = {"name": "remit", "version": "1"}
DISCOVER_SECONDS = 5.0


class UpstreamSession:
    """Made by `open_session`. Calls may run at the same time; once `broken` it takes no more."""

    def __init__(
        self, server: ServerAddress, link: Link, limits: Limits, program: sandboxes.RunningServer | None
    ) -> None:
        self.server = server
        self.protocol_version = ""
        self.listing: Listing | None = None
        self.listed_at = 0.0
        self.last_used = time.monotonic()
        self.in_flight = 0
        self._link = link
        self._limits = limits
        self._program = program
        self._timed_out = False
        self._param_headers: dict[str, Mapping[tuple[str, ...], str]] = {}

    @property
    def broken(self) -> ServerFault | None:
        """Why new calls should go elsewhere; None while it is fine."""
        if self._timed_out:
            return ServerFault("upstream.timeout", "It has left a call without an answer.")
        return self._link.fault

    @property
    def tools_changed(self) -> bool:
        return self._link.tools_changed

    async def negotiate(self) -> None:
        """Find the generation the server speaks: the stateless one if it answers discovery, else the handshake."""
        asks = self.server.protocol_version not in HANDSHAKE_PROTOCOL_VERSIONS
        if asks and await self._discovers(DISCOVER_SECONDS):
            self.protocol_version = LATEST_MODERN_VERSION
            return
        offer = {"protocolVersion": LATEST_HANDSHAKE_VERSION, "capabilities": {}, "clientInfo": CLIENT_INFO}
        try:
            result = await self._link.request(
                "initialize", offer, seconds=self._limits.connect_seconds, headers=self._headers("initialize", offer)
            )
        except Refused:
            # A server that was still starting answered discovery too late for us, and from then on the connection
            # speaks the stateless generation only. By now it is up: asked again, it says so.
            if not asks or not await self._discovers(self._limits.connect_seconds):
                raise
            self.protocol_version = LATEST_MODERN_VERSION
            return
        version = result.get("protocolVersion")
        if version not in HANDSHAKE_PROTOCOL_VERSIONS:
            raise ServerFault("upstream.protocol", f"It speaks “{str(version)[:40]}”, a version Remit does not.")
        self.protocol_version = version
        await self._link.notify("notifications/initialized", None, headers={MCP_PROTOCOL_VERSION_HEADER: version})

    async def list_tools(self) -> Listing:
        """Every page of tools/list, sorted out. The listing is remembered for the tools' header rules and hashes."""
        raw_tools: list[Any] = []
        cursor: str | None = None
        self._link.tools_changed = False
        for _ in range(self._limits.pages):
            result = await self._request("tools/list", {"cursor": cursor} if cursor else {}, self._limits.call_seconds)
            page = result.get("tools")
            if not isinstance(page, list):
                raise ServerFault("upstream.garbage", "Its list of tools is not a list.")
            raw_tools += page
            cursor = result.get("nextCursor")
            if len(raw_tools) > self._limits.tools:
                raise ServerFault("upstream.too_many_tools", f"It offers more than {self._limits.tools} tools.")
            if not isinstance(cursor, str) or not cursor:
                break
        else:
            raise ServerFault("upstream.too_many_tools", "Its list of tools does not end.")
        accepted, rejected = await asyncio.to_thread(sort_out, raw_tools)
        self._param_headers = {
            tool.name: x_mcp_header_map(tool.definition.get("inputSchema"))
            for tool in accepted
            if find_invalid_x_mcp_header(tool.definition.get("inputSchema")) is None
        }
        self.listing = Listing(self.protocol_version, tuple(accepted), tuple(rejected))
        self.listed_at = time.monotonic()
        return self.listing

    async def call(self, name: str, arguments: Mapping[str, Any], *, seconds: float) -> Mapping[str, Any]:
        """The raw result of tools/call. Raises Refused, NotSent, ServerFault."""
        return await self._request("tools/call", {"name": name, "arguments": arguments}, seconds)

    async def close(self) -> None:
        await self._link.close()
        if self._program:
            await self._program.stop()

    async def last_words(self) -> str:
        return await self._program.last_words() if self._program else ""

    async def _discovers(self, seconds: float) -> bool:
        params = {"_meta": self._meta(LATEST_MODERN_VERSION)}
        headers = {MCP_PROTOCOL_VERSION_HEADER: LATEST_MODERN_VERSION, MCP_METHOD_HEADER: "server/discover"}
        try:
            result = await self._link.request("server/discover", params, seconds=seconds, headers=headers)
        except (Refused, NotSent) as answer:
            if isinstance(answer, NotSent) and (self._link.fault or answer.code != "upstream.rejected"):
                raise
            return False
        except ServerFault as fault:
            if fault.code == "upstream.timeout" and self._link.fault is None:
                return False
            raise
        versions = result.get("supportedVersions")
        return isinstance(versions, list) and any(version in MODERN_PROTOCOL_VERSIONS for version in versions)

    async def _request(self, method: str, params: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        if self.protocol_version in MODERN_PROTOCOL_VERSIONS:
            params = {**params, "_meta": self._meta(self.protocol_version)}
        self.in_flight += 1
        try:
            return await self._link.request(method, params, seconds=seconds, headers=self._headers(method, params))
        except ServerFault as fault:
            self._timed_out = self._timed_out or fault.code == "upstream.timeout"
            raise
        finally:
            self.in_flight -= 1
            self.last_used = time.monotonic()

    def _meta(self, version: str) -> dict[str, Any]:
        return {
            PROTOCOL_VERSION_META_KEY: version,
            CLIENT_INFO_META_KEY: CLIENT_INFO,
            CLIENT_CAPABILITIES_META_KEY: {},
        }

    def _headers(self, method: str, params: Mapping[str, Any]) -> dict[str, str]:
        if not self.protocol_version:
            return {}
        headers = {MCP_PROTOCOL_VERSION_HEADER: self.protocol_version}
        if self.protocol_version in MODERN_PROTOCOL_VERSIONS:
            headers[MCP_METHOD_HEADER] = method
            if method == "tools/call":
                headers[MCP_NAME_HEADER] = encode_header_value(params["name"])
                mirrored = self._param_headers.get(params["name"], {})
                headers.update(mcp_param_headers(dict(mirrored), params["arguments"]))
        return headers


async def open_session(server: ServerAddress, context: RunContext, limits: Limits) -> UpstreamSession:
    """Connect, negotiate, and take the first listing. Raises ServerFault; leaves nothing running then."""
    program = await sandboxes.start(server, context) if server.transport == Transport.STDIO else None
    presenter = Presenter(server) if server.credential else None
    link: Link = (
        LineLink(program.reader, program.writer, limits) if program else HttpLink(server.url, limits, presenter)
    )
    session = UpstreamSession(server, link, limits, program)
    try:
        async with asyncio.timeout(limits.connect_seconds):
            await session.negotiate()
            await session.list_tools()
    except TimeoutError:
        await asyncio.shield(session.close())
        message = f"It did not introduce itself within {limits.connect_seconds:g} seconds."
        raise ServerFault("upstream.timeout", message) from None
    except Refused as refused:
        await asyncio.shield(session.close())
        raise ServerFault("upstream.refused", f"It refused to talk: {refused.message[:200]}") from refused
    except ServerFault as fault:
        reason = await session.last_words()
        await asyncio.shield(session.close())
        raise ServerFault(fault.code, f"{fault.message} {reason}".strip()) from fault
    except BaseException:
        with contextlib.suppress(Exception):
            await asyncio.shield(session.close())
        raise
    return session
