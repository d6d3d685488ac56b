"""uvicorn's HTTP protocol with limits it lacks: size of the headers, and time for the headers, for the body and for a
reader to go on reading."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
HEADER_SECONDS = 10.0
BODY_SECONDS = 60.0
READ_SECONDS = 60.0
IS_GONE = "remit.is_gone"  # in the scope: whether the client has left


def while_connected(application: Any) -> Any:
    """A WSGI application whose answer ends when its reader leaves: a long file would be made to its end for nobody."""

    def guarded(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        is_gone = environ["asgi.scope"].get(IS_GONE)
        pieces = application(environ, start_response)
        try:
            for piece in pieces:
                if is_gone is not None and is_gone():
                    return
                yield piece
        finally:
            if hasattr(pieces, "close"):
                pieces.close()

    return guarded


class LimitedProtocol(HttpToolsProtocol):
    """Closes with 431 when the headers are too large and with 408 when a request trickles in too slowly. A client that
    stops reading its answer is cut off: each holds one of the few threads that serve pages."""

    _header_bytes = 0
    _refused = False
    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._within(HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        self._reads_on()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._reads_on()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if not self._refused:
            super().data_received(data)

    def handle_websocket_upgrade(self) -> None:
        self._in_time()
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        self._header_bytes = 0
        self._within(HEADER_SECONDS)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            self._refuse(431, "The request has too many headers.")

    def on_headers_complete(self) -> None:
        if self._refused:
            return
        self._within(BODY_SECONDS)
        self.scope[IS_GONE] = self.transport.is_closing  # type: ignore[literal-required]
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_time()
        if not self._refused:
            super().on_message_complete()

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refuse(431, f"The request's headers are larger than {MAX_HEADER_BYTES} bytes.")

    def _within(self, seconds: float) -> None:
        self._in_time()
        self._deadline = self.loop.call_later(seconds, self._refuse, 408, "The request did not arrive in time.")

    def _in_time(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _reads_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _refuse(self, status: int, message: str) -> None:
        """Answer if nothing has been answered yet, and close. The request in hand sees a disconnected client."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._in_time()
        silent = self.headers is None  # a connection opened ahead of need, as browsers do
        answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not silent and not answering:
            body = message.encode()
            head = b"content-type: text/plain; charset=utf-8\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(
                body
            )
            self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
