"""A plain client of `/api/v1/actions` that sends exactly what a test says."""

from __future__ import annotations

import http.client
import json
import socket
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: Any

    @property
    def code(self) -> str:
        """Of a problem, checked to be one in every field."""
        assert self.headers["content-type"] == "application/problem+json", self
        assert {"type", "title", "status", "detail", "code", "errors", "remedies", "trace_id"} <= set(self.body)
        assert self.body["status"] == self.status
        assert self.body["type"].endswith(f"/{self.body['code']}")
        assert len(self.body["trace_id"]) == 32
        assert self.headers["x-trace-id"] == self.body["trace_id"]
        return str(self.body["code"])


class Api:
    """One caller with one token."""

    def __init__(self, address: str, token: str | None) -> None:
        self.address = urlsplit(address).netloc
        self.token = token

    def send(self, method: str, path: str, raw: Any = None, **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token is not None:
            named = {"authorization": f"Bearer {self.token}", **named}
        if raw is not None:
            named = {"content-type": "application/json", **named}
        connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request(method, f"/api/v1/actions{path}", raw, named)
            response = connection.getresponse()
            body = response.read()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, json.loads(body) if body else None)
        finally:
            connection.close()

    def propose(self, body: Any, key: str | None = None, **headers: str) -> Reply:
        named = {"idempotency-key": key or uuid.uuid4().hex, **headers}
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", "", raw, **named)

    def post(self, path: str, body: Any, **headers: str) -> Reply:
        return self.send("POST", path, json.dumps(body).encode(), **headers)

    def get(self, path: str = "") -> Reply:
        return self.send("GET", path)


def everything(connection: socket.socket) -> bytes:
    """What the server says until it closes, or falls silent for a second."""
    connection.settimeout(10)
    answer = b""
    with suppress(TimeoutError, ConnectionError):
        while piece := connection.recv(65536):
            answer += piece
            connection.settimeout(1)
    return answer
