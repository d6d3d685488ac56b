"""JSON-RPC to one upstream server, over a sandbox's stdio or streamable HTTP. Knows ids and bytes, not MCP's methods.

Written on the wire format itself, not on the SDK's client: we have to bound what is read before it is parsed, keep an
answer from reaching a call it was not for, and know for certain whether a request that failed had been sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import httpx2
import pydantic_core
import structlog

from agents.servers.addresses import NEVER_CONNECTED, capped, guarded_client
from agents.servers.presenting import Presenter
from agents.servers.types import Limits, ServerFault

log = structlog.get_logger(__name__)

METHOD_NOT_FOUND = -32601
_CHUNK = 65536


class Refused(Exception):
    """The server answered with a JSON-RPC error: it is certain that it received the request."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class NotSent(ServerFault):
    """The request never reached the server."""


class Link(Protocol):
    """One connection. `fault`: why it is closed. `tools_changed`: the server has said that its tools are others now."""

    fault: ServerFault | None
    tools_changed: bool

    async def request(
        self, method: str, params: Mapping[str, Any], *, seconds: float, headers: Mapping[str, str]
    ) -> Mapping[str, Any]:
        """The result. Raises Refused, NotSent, or ServerFault when it is not known what came of the request."""

    async def notify(self, method: str, params: Mapping[str, Any] | None, *, headers: Mapping[str, str]) -> None: ...

    async def close(self) -> None: ...


class LineLink:
    """One JSON object a line over a pair of streams. Any line that is not one closes the connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limits: Limits) -> None:
        self.fault: ServerFault | None = None
        self.tools_changed = False
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._unanswered_bytes = 0
        self._task = asyncio.create_task(self._read())

    async def request(
        self,
        method: str,
        params: Mapping[str, Any],
        *,
        seconds: float,
        headers: Mapping[str, str],  # noqa: ARG002 - lines have none
    ) -> Mapping[str, Any]:
        if self.fault:
            raise NotSent(self.fault.code, self.fault.message)
        identifier = next(self._ids)
        answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[identifier] = answer
        self._unanswered_bytes = 0
        try:
            async with asyncio.timeout(seconds):
                await self._write({"jsonrpc": "2.0", "id": identifier, "method": method, "params": params})
                return _result_of(await answer)
        except TimeoutError:
            await self._forget(identifier)
            raise ServerFault("upstream.timeout", f"It did not answer within {seconds:g} seconds.") from None
        except asyncio.CancelledError:
            await asyncio.shield(self._forget(identifier))
            raise
        finally:
            self._pending.pop(identifier, None)

    async def notify(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        *,
        headers: Mapping[str, str],  # noqa: ARG002
    ) -> None:
        await self._write({"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})})

    async def close(self) -> None:
        self._fail(ServerFault("upstream.closed", "The connection to the server was closed."))
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), 1)

    async def _read(self) -> None:
        try:
            async for line in self._lines():
                await self._handle(_message(line))
            raise ServerFault("upstream.died", "The server's program ended.")
        except ServerFault as fault:
            self._fail(fault)
        except OSError as error:
            self._fail(ServerFault("upstream.died", f"The stream to the server broke: {error}."))

    async def _lines(self) -> AsyncIterator[bytes]:
        buffer = bytearray()
        while chunk := await self._reader.read(_CHUNK):
            self._unanswered_bytes += len(chunk)
            if self._unanswered_bytes > self._limits.unanswered_bytes:
                raise _flood(self._limits.unanswered_bytes)
            buffer += chunk
            while (end := buffer.find(b"\n")) >= 0:
                line = bytes(buffer[:end]).strip()
                del buffer[: end + 1]
                if len(line) > self._limits.message_bytes:
                    raise _flood(self._limits.message_bytes)
                if line:
                    yield line
            if len(buffer) > self._limits.message_bytes:
                raise _flood(self._limits.message_bytes)

    async def _handle(self, message: Mapping[str, Any]) -> None:
        if "method" in message:
            if message["method"] == "notifications/tools/list_changed":
                self.tools_changed = True
            elif "id" in message:
                await self._write(_answer_to_server(message))
            return
        answer = self._pending.pop(message["id"], None) if _is_our_id(message.get("id")) else None
        if answer is None:
            # Never asked, already answered, or another id: there is no call it could belong to.
            log.warning("upstream.stray_answer", id=str(message.get("id"))[:40])
        elif not answer.done():
            answer.set_result(message)

    async def _write(self, message: Mapping[str, Any]) -> None:
        if self.fault:
            raise NotSent(self.fault.code, self.fault.message)
        try:
            self._writer.write(pydantic_core.to_json(message) + b"\n")
            await self._writer.drain()
        except OSError as error:
            raise ServerFault("upstream.died", "The server's program ended.") from error

    async def _forget(self, identifier: int) -> None:
        """Tell the server that nobody waits any more; it may not listen."""
        self._pending.pop(identifier, None)
        with contextlib.suppress(ServerFault, TimeoutError):
            async with asyncio.timeout(1):
                await self.notify("notifications/cancelled", {"requestId": identifier}, headers={})

    def _fail(self, fault: ServerFault) -> None:
        self.fault = self.fault or fault
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(ServerFault(self.fault.code, self.fault.message))
        self._pending.clear()


class HttpLink:
    """One POST a request. The answer has to come in that POST's own response, with that request's id."""

    def __init__(self, url: str, limits: Limits, presenter: Presenter | None = None) -> None:
        self.fault: ServerFault | None = None
        self.tools_changed = False
        self._url = url
        self._presenter = presenter
        self._limits = limits
        self._ids = itertools.count(1)
        self._client = guarded_client(connect_seconds=limits.connect_seconds)
        self._session = ""

    async def request(
        self, method: str, params: Mapping[str, Any], *, seconds: float, headers: Mapping[str, str]
    ) -> Mapping[str, Any]:
        identifier = next(self._ids)
        body = pydantic_core.to_json({"jsonrpc": "2.0", "id": identifier, "method": method, "params": params})
        try:
            async with asyncio.timeout(seconds):
                answer = await self._post(method, identifier, body, await self._with_credential(headers))
                clean: Mapping[str, Any] = self._scrubbed(answer)
                return clean
        except Refused as refused:
            message, data = self._scrubbed(refused.message), self._scrubbed(refused.data)
            raise Refused(refused.code, message, data) from None
        except TimeoutError:
            raise ServerFault("upstream.timeout", f"It did not answer within {seconds:g} seconds.") from None
        except ServerFault as fault:
            if fault.code in NEVER_CONNECTED and not isinstance(fault, NotSent):
                raise NotSent(fault.code, fault.message) from fault
            raise
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol, httpx2.PoolTimeout) as error:
            raise NotSent("upstream.unreachable", f"It could not be reached: {self._words(error)}") from error
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            words = self._words(error)
            raise ServerFault("upstream.died", f"The connection broke before it answered: {words}") from error

    async def notify(self, method: str, params: Mapping[str, Any] | None, *, headers: Mapping[str, str]) -> None:
        body = pydantic_core.to_json({"jsonrpc": "2.0", "method": method, **({"params": params} if params else {})})
        try:
            async with asyncio.timeout(5), self._stream(body, await self._with_credential(headers)) as response:
                status = response.status_code
        except (httpx2.HTTPError, httpx2.StreamError, TimeoutError) as error:
            raise ServerFault("upstream.died", f"It did not take a notification: {self._words(error)}") from error
        if status >= 300:  # in words of ours: the client's have the address, which may hold a key
            raise ServerFault("upstream.died", f"It did not take a notification: HTTP status {status}.")

    async def close(self) -> None:
        self.fault = self.fault or ServerFault("upstream.closed", "The connection to the server was closed.")
        with contextlib.suppress(httpx2.HTTPError, ServerFault, TimeoutError):
            if self._session:
                async with asyncio.timeout(2):
                    ending = await self._with_credential({"mcp-session-id": self._session})
                    await self._client.delete(self._url, headers=ending)
        await self._client.aclose()

    async def _with_credential(self, headers: Mapping[str, str]) -> Mapping[str, str]:
        """Raises NotSent when there is a credential and it can't be had."""
        if self._presenter is None:
            return headers
        try:
            return {**headers, **await self._presenter.headers()}
        except ServerFault as fault:
            raise NotSent(fault.code, fault.message) from fault

    def _scrubbed(self, value: Any) -> Any:
        """What a server sends back may hold what it was shown."""
        return value if self._presenter is None else self._presenter.scrub(value)

    def _words(self, error: Exception) -> str:
        """Of a client that quotes what it could not read."""
        return str(self._scrubbed(str(error)) or type(error).__name__)[:200]

    def _stream(self, body: bytes, headers: Mapping[str, str]) -> Any:
        fixed = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        session = {"mcp-session-id": self._session} if self._session else {}
        return self._client.stream("POST", self._url, content=body, headers={**headers, **fixed, **session})

    async def _post(self, method: str, identifier: int, body: bytes, headers: Mapping[str, str]) -> Mapping[str, Any]:
        async with self._stream(body, headers) as response:
            if method == "initialize":
                self._session = response.headers.get("mcp-session-id", "")[:200]
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind == "text/event-stream" and response.status_code < 300:
                return await self._from_events(response, identifier)
            content = b"".join([chunk async for chunk in capped(response, self._limits.message_bytes)])
            if response.status_code >= 300:
                raise self._rejection(response.status_code, content, identifier)
            if kind != "application/json":
                raise ServerFault("upstream.garbage", f"It answered with “{self._scrubbed(kind)[:60]}”, not with JSON.")
            message = _message(content)
            if message.get("id") != identifier or not _is_our_id(message.get("id")):
                raise ServerFault("upstream.wrong_id", "It answered another request than the one it was sent.")
            return _result_of(message)

    async def _from_events(self, response: httpx2.Response, identifier: int) -> Mapping[str, Any]:
        async for data in _events(response, self._limits):
            message = _message(data)
            if message.get("method") == "notifications/tools/list_changed":
                self.tools_changed = True
            elif "method" not in message and _is_our_id(message.get("id")) and message["id"] == identifier:
                return _result_of(message)
        raise ServerFault("upstream.died", "It ended its answer before giving a result.")

    def _rejection(self, status: int, content: bytes, identifier: int) -> Exception:
        """What an HTTP error means. A 4xx says the request was not taken; after a 5xx anything may have happened."""
        with contextlib.suppress(ServerFault):
            message = _message(content)
            if "error" in message and message.get("id") in (identifier, None):
                with contextlib.suppress(Refused):
                    _result_of(message)
                error = message["error"]
                return Refused(int(error["code"]), str(error["message"])[:500], error.get("data"))
        if status in (401, 403) and self._presenter is not None:
            self._presenter.forget_token()
        if 400 <= status < 500:
            if status == 404 and self._session:
                self.fault = ServerFault("upstream.session_gone", "It has forgotten our session.")
            return NotSent("upstream.rejected", f"It refused the request with HTTP status {status}.")
        if status < 400:
            return NotSent("upstream.redirected", "It answered with a redirect, which is not followed.")
        return ServerFault("upstream.server_error", f"It answered with HTTP status {status}.")


async def _events(response: httpx2.Response, limits: Limits) -> AsyncIterator[bytes]:
    """The data of each server-sent event of type “message”."""
    buffer = bytearray()
    data: list[bytes] = []
    kind, size = b"message", 0
    async for chunk in capped(response, limits.unanswered_bytes):
        buffer += chunk
        while (end := buffer.find(b"\n")) >= 0:
            line = bytes(buffer[:end]).rstrip(b"\r")
            del buffer[: end + 1]
            if not line:
                if data and kind == b"message":
                    yield b"\n".join(data)
                data, kind, size = [], b"message", 0
                continue
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                size += len(value)
                data.append(value)
            elif name == b"event":
                kind = value
        if size + len(buffer) > limits.message_bytes:
            raise _flood(limits.message_bytes)


def _message(raw: bytes) -> Mapping[str, Any]:
    try:
        message = pydantic_core.from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        raise ServerFault("upstream.garbage", "It sent something that is not JSON.") from error
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise ServerFault("upstream.garbage", "It sent JSON that is not a JSON-RPC message.")
    if "method" not in message and ("result" in message) == ("error" in message):
        raise ServerFault("upstream.garbage", "It sent a message that is neither a request nor an answer.")
    return message


def _result_of(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if "error" in message:
        error = message["error"]
        code = error.get("code") if isinstance(error, dict) else None
        if not isinstance(code, int) or isinstance(code, bool) or not isinstance(error.get("message"), str):
            raise ServerFault("upstream.garbage", "It sent an error without code and message.")
        raise Refused(code, error["message"][:500], error.get("data"))
    result = message["result"]
    if not isinstance(result, dict):
        raise ServerFault("upstream.garbage", "It sent a result that is not an object.")
    return result


def _answer_to_server(message: Mapping[str, Any]) -> dict[str, Any]:
    """Servers may ask whether we are there. Sampling, elicitation and roots are not offered."""
    if message["method"] == "ping":
        return {"jsonrpc": "2.0", "id": message["id"], "result": {}}
    error = {"code": METHOD_NOT_FOUND, "message": "Remit does not serve requests of upstream servers."}
    return {"jsonrpc": "2.0", "id": message["id"], "error": error}


def _is_our_id(value: Any) -> bool:
    """Ours are whole numbers: 1.0, true and "1" are other ids, even where Python calls them equal."""
    return type(value) is int


def _flood(limit: int) -> ServerFault:
    return ServerFault("upstream.result_too_large", f"It sent more than {limit} bytes; reading stopped there.")
