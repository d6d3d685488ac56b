"""ASGI requests without a server: a scope, a body in pieces, and what was answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class Answer:
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@pytest.fixture
def ask() -> Callable[..., Answer]:
    """`ask(application, path, method=…, headers=[(name, value)], pieces=[b"…"], client=(host, port))`."""

    def call(
        application: Any,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Sequence[tuple[str, str]] = (),
        pieces: Sequence[bytes | float | None] = (b"",),
        client: tuple[str, int] | None = ("127.0.0.1", 5000),
    ) -> Answer:
        """`pieces`: bytes are a part of the body, a number waits so many seconds, None is a client that went away."""
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers],
            "client": client,
        }
        answer, waiting = Answer(), list(pieces)

        async def receive() -> dict[str, Any]:
            piece = waiting.pop(0) if waiting else None
            if isinstance(piece, int | float):
                await asyncio.sleep(piece)
                return await receive()
            if piece is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answer.body += message.get("body", b"")

        asyncio.run(application(scope, receive, send))
        return answer

    return call
