"""A sample agent's way to its tools: a stock MCP client that outlives restarts of the control plane.

It reads verdicts; what to do about one is the agent's business, not decided here.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, cast

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    REQUEST_TIMEOUT,
    CallToolResult,
    RequestParamsMeta,
    Tool,
)
from pydantic import ValidationError

DEFAULT_URL = "http://127.0.0.1:8020"
DEFAULT_PACE_SECONDS = 0.6
ACTION_META = "remit/action"
IDEMPOTENCY_META = "remit/idempotency-key"
JUSTIFICATION_META = "remit/justification"
EDITED_META = "remit/edited"
READ_TIMEOUT_SECONDS = 90.0
GIVE_UP_AFTER_SECONDS = 600.0
LONGEST_PAUSE_SECONDS = 8.0
# What the client library makes of refused connections, 404, 5xx, HTML and cut-off answers.
TRANSPORT_TROUBLE = frozenset(
    {CONNECTION_CLOSED, INTERNAL_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, PARSE_ERROR, REQUEST_TIMEOUT}
)


class Verdict(StrEnum):
    """What became of a call. ERROR: it was let through, and the tool itself said no."""

    ALLOW = "allow"
    DENY = "deny"
    ESCALATE = "escalate"
    ERROR = "error"


@dataclass(frozen=True)
class Answer:
    """A tool's result or the gateway's verdict. `data` is the parsed result when the call was let through.

    `result_missing`: the call was let through, and the server's result did not arrive; it may have happened.
    `edited`: people changed the call before they agreed, and what they agreed to is what was carried out.
    """

    verdict: Verdict
    data: Any = None
    text: str = ""
    action: str = ""
    reason_code: str = ""
    remedies: tuple[str, ...] = ()
    retry_after_seconds: float | None = None
    expires_at: datetime | None = None
    result_missing: bool = False
    edited: bool = False

    @property
    def allowed(self) -> bool:
        return self.verdict is Verdict.ALLOW


class Unreachable(Exception):
    """The gateway has not answered for a long time."""


class TokenRefused(Exception):
    """The gateway no longer accepts the run's token: the run is over, whatever the agent thinks."""


@dataclass(frozen=True)
class Settings:
    """Where the gateway is and how fast to go. `pace_seconds` is the rest between two calls."""

    url: str
    token: str = field(repr=False)
    pace_seconds: float = DEFAULT_PACE_SECONDS

    @classmethod
    def from_environment(cls) -> Settings:
        """From REMIT_URL, REMIT_TOKEN and REMIT_SAMPLE_PACE. Raises ValueError naming what is wrong."""
        token = os.environ.get("REMIT_TOKEN", "")
        if not token:
            raise ValueError("REMIT_TOKEN is not set; a run gets it from Remit when it starts")
        url = os.environ.get("REMIT_URL") or DEFAULT_URL
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"REMIT_URL is not a web address: {url[:100]!r}")
        pace = float(os.environ.get("REMIT_SAMPLE_PACE") or DEFAULT_PACE_SECONDS)
        if not 0 <= pace <= 60:
            raise ValueError("REMIT_SAMPLE_PACE is seconds between calls, from 0 to 60")
        return cls(url=url.rstrip("/"), token=token, pace_seconds=pace)


def log(text: str) -> None:
    """One line of the run's log, at once."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {text}\n")
    sys.stdout.flush()


class Gateway:
    """Calls tools one after another. Use as `async with Gateway.open(settings) as gateway`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._calls: asyncio.Queue[_Call] = asyncio.Queue()
        self._status = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Gateway]:
        gateway = cls(settings)
        connection = asyncio.create_task(gateway._keep_connected())
        try:
            yield gateway
        finally:
            connection.cancel()
            with suppress(asyncio.CancelledError):
                await connection

    async def tools(self) -> list[str]:
        """Names of the tools this run may see, sorted."""
        names: list[str] = await self._ask(_Call(tool=""))
        return names

    async def call(
        self, tool: str, arguments: Mapping[str, Any] | None = None, *, action: str = "", why: str = ""
    ) -> Answer:
        """Call a tool; with `action`, redeem what was decided about that earlier call. `why` is for people to read.

        Asked again after a lost connection, the same key makes it the same call. Raises TokenRefused, Unreachable.
        """
        named = {IDEMPOTENCY_META: str(uuid.uuid4())}
        if action:
            named[ACTION_META] = action
        if why:
            named[JUSTIFICATION_META] = why
        meta = cast(RequestParamsMeta, named)
        answer: Answer = await self._ask(_Call(tool=tool, arguments=dict(arguments or {}), meta=meta))
        return answer

    async def rest(self) -> None:
        await asyncio.sleep(self._settings.pace_seconds)

    async def _ask(self, call: _Call) -> Any:
        call.answer = asyncio.get_running_loop().create_future()
        await self._calls.put(call)
        return await call.answer

    async def _keep_connected(self) -> None:
        """Hold one client open and feed it; when it breaks, open another and ask the unanswered call again."""
        call = await self._calls.get()
        silent_since: float | None = None
        pause = 0.25
        while True:
            try:
                async with self._client() as client:
                    while True:
                        call.answer.set_result(await _perform(client, call))
                        silent_since, pause = None, 0.25
                        call = await self._calls.get()
            except Exception as error:
                problem = _cause(error)
                if self._status in (401, 403):
                    call.answer.set_exception(TokenRefused("the gateway refuses this run's token"))
                    call = await self._calls.get()
                    continue
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > GIVE_UP_AFTER_SECONDS:
                    call.answer.set_exception(Unreachable(f"no answer from {self._settings.url}: {problem}"))
                    call = await self._calls.get()
                    silent_since = None
                    continue
                log(f"The gateway does not answer ({problem}); trying again in {pause:g} s")
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        async def remember(response: httpx2.Response) -> None:
            self._status = response.status_code

        self._status = 0
        async with httpx2.AsyncClient(
            headers={"Authorization": f"Bearer {self._settings.token}"},
            timeout=httpx2.Timeout(10.0, read=READ_TIMEOUT_SECONDS),
            event_hooks={"response": [remember]},
            trust_env=False,  # the gateway is on our own loopback; a proxy has no business in between
        ) as http:
            transport = streamable_http_client(f"{self._settings.url}/mcp", http_client=http)
            async with Client(transport, read_timeout_seconds=READ_TIMEOUT_SECONDS) as client:
                yield client


@dataclass
class _Call:
    """`tool` empty means: list the tools."""

    tool: str
    arguments: dict[str, Any] = field(default_factory=dict)
    meta: RequestParamsMeta = field(default_factory=RequestParamsMeta)
    answer: asyncio.Future[Any] = field(init=False)


async def _perform(client: Client, call: _Call) -> Any:
    if not call.tool:
        return sorted([tool.name for tool in await _all_tools(client)])
    try:
        result = await client.call_tool(call.tool, call.arguments, meta=call.meta)
    except MCPError as error:
        if error.code in TRANSPORT_TROUBLE:
            raise
        # Anything else is the gateway's own answer, such as "no such tool" for one that isn't granted.
        return Answer(verdict=Verdict.DENY, text=error.message, reason_code="protocol.refused")
    except (RuntimeError, ValidationError) as error:
        # The result does not fit the tool's own schema: asking again would only do the thing again.
        return Answer(verdict=Verdict.ERROR, text=f"unusable result: {str(error)[:200]}")
    return _answer(result)


async def _all_tools(client: Client) -> list[Tool]:
    page = await client.list_tools()
    tools = list(page.tools)
    while page.next_cursor:
        page = await client.list_tools(cursor=page.next_cursor)
        tools += page.tools
    return tools


def _answer(result: CallToolResult) -> Answer:
    texts = [block.text for block in result.content if block.type == "text"]
    text = "\n".join(texts)
    said = result.structured_content
    if result.is_error and isinstance(said, dict) and said.get("verdict") in ("deny", "escalate"):
        escalation = said.get("escalation") or {}
        return Answer(
            verdict=Verdict(said["verdict"]),
            text=str(said.get("message") or text),
            action=str(said.get("id") or ""),
            reason_code=str(said.get("reason_code") or ""),
            remedies=tuple(str(remedy) for remedy in said.get("remedies") or ()),
            retry_after_seconds=said.get("retry_after"),
            expires_at=_time(escalation.get("expires_at")),
        )
    if result.is_error:
        # The gateway's own words, "allow" without a result, differ from a tool that says no.
        missing = isinstance(said, dict) and said.get("verdict") == "allow"
        return Answer(verdict=Verdict.ERROR, text=text, result_missing=missing)
    edited = bool((result.meta or {}).get(EDITED_META))
    return Answer(verdict=Verdict.ALLOW, data=_data(said, texts), text=text, edited=edited)


def _data(structured: Any, texts: list[str]) -> Any:
    """Structured content where there is some; else the first text that is JSON or, as of old, a Python literal."""
    if isinstance(structured, dict):
        return structured["result"] if set(structured) == {"result"} else structured
    for text in texts:
        for parse in (json.loads, ast.literal_eval):
            with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                return parse(text)
    return None


def _time(text: Any) -> datetime | None:
    if not isinstance(text, str):
        return None
    with suppress(ValueError):
        return datetime.fromisoformat(text)
    return None


def _cause(error: BaseException) -> str:
    """The first plain error inside the groups a client wraps it in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
