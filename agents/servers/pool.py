"""Sessions of live runs, in the web process's event loop: one per run and server, opened at need, closed when idle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from agents.servers.health import Use
from agents.servers.links import NotSent, Refused
from agents.servers.sessions import UpstreamSession, open_session
from agents.servers.types import (
    DEFAULT_LIMITS,
    Limits,
    Listing,
    PinnedTool,
    RunContext,
    ServerAddress,
    ServerFault,
    UpstreamKind,
    UpstreamResult,
)
from controlplane.common.canonical import MAX_DEPTH, check_value, digest_of_bytes
from controlplane.common.errors import RemitError

log = structlog.get_logger(__name__)

Opener = Callable[[ServerAddress, RunContext, Limits], Awaitable[UpstreamSession]]
OnListing = Callable[[ServerAddress, Listing], Awaitable[None]]
OnUse = Callable[[Mapping[uuid.UUID, Use]], Awaitable[None]]
WhichEnded = Callable[[Collection[uuid.UUID]], Awaitable[Collection[uuid.UUID]]]

LISTING_IS_FRESH_SECONDS = 60.0
LONGEST_BACK_OFF_SECONDS = 30.0
# The pause after a first failure: an agent that asks again at once gets an answer rather than another failure.
WAITED_OUT_SECONDS = 1.0
JANITOR_EVERY_SECONDS = 5.0
LARGEST_NUMBER = 10**300
_NOT_THE_SERVERS = frozenset({"tool.definition_changed", "upstream.closed", "upstream.credential"})


@dataclass
class _Slot:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    session: UpstreamSession | None = None
    failures: int = 0
    not_before: float = 0.0
    last_fault: ServerFault | None = None


class SessionPool:
    """`on_listing` is told what a server offers whenever a session sees it for the first time, or changed."""

    def __init__(
        self,
        *,
        on_listing: OnListing,
        which_ended: WhichEnded,
        on_use: OnUse | None = None,
        limits: Limits = DEFAULT_LIMITS,
        opener: Opener = open_session,
    ) -> None:
        self._on_listing = on_listing
        self._which_ended = which_ended
        self._on_use = on_use
        self._uses: dict[uuid.UUID, Use] = {}
        self._limits = limits
        self._open = opener
        self._slots: dict[tuple[uuid.UUID | None, uuid.UUID], _Slot] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    async def call_upstream(
        self, context: RunContext, tool: PinnedTool, arguments: bytes, *, seconds: float | None = None
    ) -> UpstreamResult:
        """Carry out one permitted call. `arguments` are the canonical bytes that were judged; their value is sent.

        Never raises for what a server does: every way it can misbehave has a named result.
        """
        started = time.monotonic()
        result = await self._call(context, tool, arguments, seconds)
        if self._on_use is not None:
            self._count(tool.server.id, result, time.monotonic() - started)
        return result

    async def _call(
        self, context: RunContext, tool: PinnedTool, arguments: bytes, seconds: float | None
    ) -> UpstreamResult:
        try:
            session = await self._session(context, tool)
        except (NotSent, ServerFault, RemitError) as fault:
            # RemitError: the database was away when the listing was to be noted. Nothing was sent either way.
            return UpstreamResult(UpstreamKind.ERROR, fault.code, fault.message, sent=False)
        seconds = seconds or self._limits.call_seconds
        try:
            raw = await session.call(tool.name, json.loads(arguments), seconds=seconds)
        except Refused as refused:
            message = f"The server refused the call: {refused.message}"
            return UpstreamResult(UpstreamKind.ERROR, "upstream.refused", message)
        except NotSent as fault:
            return UpstreamResult(UpstreamKind.ERROR, fault.code, fault.message, sent=False)
        except ServerFault as fault:
            # It was sent and there is no answer to go by. Of a tool that changes nothing we know what that means.
            kind = UpstreamKind.ERROR if tool.read_only else UpstreamKind.UNKNOWN
            return UpstreamResult(kind, fault.code, fault.message)
        return _checked(raw, tool)

    async def close_run(self, run_id: uuid.UUID) -> None:
        for key in [key for key in self._slots if key[0] == run_id]:
            self._retire(self._slots.pop(key).session)

    async def close(self) -> None:
        """End every session; nothing of ours survives the web process."""
        self._closed = True
        with contextlib.suppress(Exception):
            await self._tell_uses()
        for slot in self._slots.values():
            self._retire(slot.session)
        self._slots.clear()
        if self._closing:
            await asyncio.wait(self._closing, timeout=5)

    async def keep_tidy(self) -> None:
        """Until cancelled: close sessions that are idle, broken, or whose run has ended."""
        while True:
            await asyncio.sleep(JANITOR_EVERY_SECONDS)
            try:
                await self._tidy()
            except Exception:
                log.exception("upstream.janitor_failed")

    async def _tidy(self) -> None:
        moment = time.monotonic()
        for key, slot in list(self._slots.items()):
            session = slot.session
            if session is None:
                if not slot.lock.locked() and moment > slot.not_before + LONGEST_BACK_OFF_SECONDS:
                    self._slots.pop(key, None)
            elif session.in_flight == 0 and (session.broken or moment - session.last_used > self._limits.idle_seconds):
                slot.session = None
                self._retire(session)
        await self._tell_uses()
        runs = {key[0] for key in self._slots if key[0] is not None}
        for run_id in await self._which_ended(runs) if runs else ():
            await self.close_run(run_id)

    def _count(self, server_id: uuid.UUID, result: UpstreamResult, seconds: float) -> None:
        """The server's own faults; a changed definition or a call it refuses is no sign of bad health."""
        if result.reason_code in _NOT_THE_SERVERS:
            return
        failed = result.kind is not UpstreamKind.RESULT and result.reason_code != "upstream.refused"
        so_far = self._uses.get(server_id, Use())
        self._uses[server_id] = Use(
            so_far.calls + 1, so_far.failed + failed, so_far.milliseconds + round(seconds * 1000)
        )

    async def _tell_uses(self) -> None:
        """Lost when the database is away: it is a picture of health, not an account."""
        if self._on_use is not None and self._uses:
            uses, self._uses = self._uses, {}
            await self._on_use(uses)

    async def _session(self, context: RunContext, tool: PinnedTool) -> UpstreamSession:
        """The run's session with the tool's server, with a listing fresh enough to vouch for the tool's definition."""
        slot = self._slots.setdefault((context.run_id, tool.server.id), _Slot())
        session = slot.session
        if session is None or session.broken or _is_stale(session) or not _is_same(session.server, tool.server):
            async with slot.lock:
                session = await self._renewed(slot, context, tool.server)
        known = {entry.name: entry.sha256 for entry in (session.listing.tools if session.listing else ())}
        if known.get(tool.name) != tool.definition_sha256:
            raise NotSent(
                "tool.definition_changed",
                f"{tool.qualified_name} is no longer what was approved; it waits until a person has looked at it.",
            )
        return session

    async def _renewed(self, slot: _Slot, context: RunContext, server: ServerAddress) -> UpstreamSession:
        session = slot.session
        if session and not session.broken and _is_same(session.server, server):
            if _is_stale(session):
                await self._relist(slot, session)
            return session
        if session:
            slot.session = None
            self._retire(session)
        wait = slot.not_before - time.monotonic()
        if wait > WAITED_OUT_SECONDS:
            because = slot.last_fault.message if slot.last_fault else ""
            raise NotSent(
                "upstream.backing_off", f"It failed before and is tried again in {wait:.1f} seconds. {because}".strip()
            )
        await asyncio.sleep(wait)
        if self._closed:
            raise NotSent("upstream.closed", "Remit is shutting down.")
        try:
            session = await self._open(server, context, self._limits)
        except ServerFault as fault:
            slot.failures += 1
            slot.last_fault = fault
            slot.not_before = time.monotonic() + min(0.5 * 2**slot.failures, LONGEST_BACK_OFF_SECONDS)
            raise
        slot.session, slot.failures = session, 0
        if session.listing:
            await self._on_listing(server, session.listing)
        return session

    async def _relist(self, slot: _Slot, session: UpstreamSession) -> None:
        before = session.listing
        try:
            listing = await session.list_tools()
        except Refused as refused:
            slot.session = None
            self._retire(session)
            raise NotSent("upstream.refused", f"It no longer lists its tools: {refused.message}") from refused
        except ServerFault as fault:
            slot.session = None
            self._retire(session)
            # The call itself has not been sent, whatever became of the listing.
            raise NotSent(fault.code, fault.message) from fault
        if listing != before:
            await self._on_listing(session.server, listing)

    def _retire(self, session: UpstreamSession | None) -> None:
        if session is None:
            return

        async def close() -> None:
            while session.in_flight and not self._closed:
                await asyncio.sleep(0.1)
            with contextlib.suppress(Exception):
                await session.close()

        task = asyncio.get_running_loop().create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _is_same(session: ServerAddress, now: ServerAddress) -> bool:
    """A credential that was changed or taken away is not shown by connections made before."""
    return session.credential == now.credential and session.url == now.url


def _is_stale(session: UpstreamSession) -> bool:
    return session.tools_changed or time.monotonic() - session.listed_at > LISTING_IS_FRESH_SECONDS


def _checked(raw: Any, tool: PinnedTool) -> UpstreamResult:
    """A result in the shape of the protocol, hashed; anything else is an answer nobody can use."""
    if raw.get("resultType") not in (None, "complete"):
        message = "The server asks for more input in the middle of the call, which Remit does not relay."
        return UpstreamResult(UpstreamKind.ERROR, "upstream.input_required", message)
    problem = _shape_problem(raw) or _value_problem(raw)
    if problem:
        kind = UpstreamKind.ERROR if tool.read_only else UpstreamKind.UNKNOWN
        return UpstreamResult(kind, "upstream.garbage", f"The server's result is not usable: {problem}")
    encoded = json.dumps(raw, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return UpstreamResult(UpstreamKind.RESULT, content=raw, result_sha256=digest_of_bytes(encoded))


def _value_problem(raw: Any) -> str:
    """Results are nobody's instruction to us, so large numbers may stay; what other readers would choke on may not."""
    try:
        check_value(raw)
    except RemitError as error:
        if error.code != "json.integer_too_large" or not _numbers_are_finite(raw):
            return error.message
    return ""


def _numbers_are_finite(value: Any, depth: int = 0) -> bool:
    if depth > MAX_DEPTH:
        return False
    if isinstance(value, dict):
        return all(_numbers_are_finite(item, depth + 1) for item in value.values())
    if isinstance(value, list):
        return all(_numbers_are_finite(item, depth + 1) for item in value)
    return not isinstance(value, int | float) or abs(value) < LARGEST_NUMBER


def _shape_problem(raw: Any) -> str:
    content = raw.get("content", [])
    if not isinstance(content, list) or not all(isinstance(block, dict) and "type" in block for block in content):
        return "its content is not a list of blocks."
    if not isinstance(raw.get("isError", False), bool):
        return "isError is neither true nor false."
    if not isinstance(raw.get("structuredContent", {}), dict):
        return "its structured content is not an object."
    return ""
