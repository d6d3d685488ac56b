"""What plain ASGI edges share: bodies with limits, bearer tokens, JSON answers, problem details. No principals."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

import structlog
from django.http import HttpResponse

from controlplane.common import metrics
from controlplane.common.canonical import MAX_BYTES
from controlplane.common.errors import RemitError, internal_error
from controlplane.common.observability import incoming_span, trace_id

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

PROBLEM_TYPE: Final = "application/problem+json"
BODY_SECONDS: Final = 15.0


def header(scope: Scope, name: str) -> str | None:
    """The one value of a header; None when it is absent. Raises 400 `request.repeated_header` when two are sent."""
    wanted = name.encode()
    values = [value for key, value in scope["headers"] if key == wanted]
    if len(values) > 1:
        raise RemitError("request.repeated_header", f"The header {name} is sent more than once.", 400)
    return values[0].decode("latin-1").strip() if values else None


def bearer_of(scope: Scope) -> str | None:
    """The bearer token of a request or websocket; None without an Authorization header or with another scheme."""
    scheme, _, token = (header(scope, "authorization") or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


async def read_body(
    scope: Scope, receive: Receive, *, max_bytes: int = MAX_BYTES, seconds: float = BODY_SECONDS
) -> bytes:
    """The whole body. Raises 413 `body.too_large` before reading more than is allowed, 408 `body.too_slow`, 415 for
    compressed bodies (what is checked must be what was sent), 400 `body.cut_off` when the client went away."""
    encoding = (header(scope, "content-encoding") or "identity").lower()
    if encoding != "identity":
        raise RemitError(
            "body.compressed", f"Bodies in {encoding[:40]} are not read.", 415, remedies=("Send it uncompressed.",)
        )
    announced = header(scope, "content-length") or "0"
    if not announced.isascii() or not announced.isdigit():
        raise RemitError("body.bad_length", "Content-Length is not a number.", 400)
    if len(announced) > 15 or int(announced) > max_bytes:
        raise _too_large(max_bytes)
    try:
        async with asyncio.timeout(seconds):
            return await _collect(receive, max_bytes)
    except TimeoutError as error:
        raise RemitError(
            "body.too_slow", f"The body did not arrive within {seconds:g} seconds.", 408, retry_after_seconds=1
        ) from error


def require_json(scope: Scope) -> None:
    """Raises 415 `body.not_json` unless the body says that it is JSON in UTF-8. A form of another site can't say so."""
    kind, _, parameters = (header(scope, "content-type") or "").lower().partition(";")
    name = kind.strip()
    charset = parameters.replace(" ", "").replace('"', "")
    if (name != "application/json" and not name.endswith("+json")) or charset not in ("", "charset=utf-8"):
        raise RemitError(
            "body.not_json", "The body must be JSON.", 415, remedies=("Send Content-Type: application/json.",)
        )


async def send_response(
    send: Send, status: int, body: bytes, content_type: str, headers: Mapping[str, str] | None = None
) -> None:
    lines = {
        "content-type": content_type,
        "content-length": str(len(body)),
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        **(headers or {}),
    }
    if identifier := trace_id():
        lines["x-trace-id"] = identifier
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, status: int, value: Any, headers: Mapping[str, str] | None = None) -> None:
    await send_response(send, status, json.dumps(value).encode(), "application/json", headers)


async def send_problem(send: Send, error: RemitError) -> None:
    """The error as RFC 9457 problem details."""
    body = json.dumps(error.problem(trace_id=trace_id())).encode()
    await send_response(send, error.status, body, PROBLEM_TYPE, problem_headers(error))


def problem_response(error: RemitError) -> HttpResponse:
    """The same for Django views."""
    body = json.dumps(error.problem(trace_id=trace_id()))
    return HttpResponse(body, status=error.status, content_type=PROBLEM_TYPE, headers=problem_headers(error))


def problem_headers(error: RemitError) -> dict[str, str]:
    """How to authenticate, when to come back, and that the rest of a body goes unread."""
    headers: dict[str, str] = {}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.status in (408, 413):
        headers["connection"] = "close"
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(error.retry_after_seconds)
    return headers


def edge(name: str) -> Callable[[Application], Application]:
    """Decorator of an ASGI function: one span (continuing the caller's trace), one count, and an answer to every error.

    An error without a name becomes a 500 that tells nothing but the trace id, under which the log has the rest.
    """

    def decorate(application: Application) -> Application:
        @functools.wraps(application)
        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            answer = _Answer(send)
            started = time.perf_counter()
            carrier = {
                key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"] if key in _TRACE
            }
            attributes = {"http.request.method": scope["method"], "url.path": scope["path"]}
            with incoming_span("http.request", carrier, **attributes):
                structlog.contextvars.clear_contextvars()
                try:
                    await application(scope, receive, answer)
                except Exception as error:
                    await _answer_error(answer, error, name)
                finally:
                    metrics.count_request(name, scope["method"], answer.status, time.perf_counter() - started)

        return served

    return decorate


_TRACE = (b"traceparent", b"tracestate")


class _Answer:
    """Passes messages on and remembers the status; 0 until an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


async def _answer_error(answer: _Answer, error: Exception, name: str) -> None:
    if not isinstance(error, RemitError):
        log.exception("edge.failed", edge=name)
    if answer.status:
        raise error  # too late for an answer: the server cuts the connection
    named = error if isinstance(error, RemitError) else internal_error()
    await send_problem(answer, named)


async def _collect(receive: Receive, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RemitError("body.cut_off", "The client went away in the middle of the body.", 400)
        piece = message.get("body", b"")
        size += len(piece)
        if size > max_bytes:
            raise _too_large(max_bytes)
        if piece:
            pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)


def _too_large(max_bytes: int) -> RemitError:
    return RemitError("body.too_large", f"At most {max_bytes} bytes are read.", 413, remedies=("Send less at a time.",))
