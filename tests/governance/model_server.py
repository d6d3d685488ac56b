"""A real HTTP server that plays an OpenAI-compatible model: a test says what it answers, byte for byte if it wants."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "scripted-1"
Reply = tuple[int, bytes]


class ModelServer:
    """`asked`: the requests it got. `play` decides each reply; `pace` sends it in drips."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.play: Callable[[dict[str, Any]], Reply] = lambda request: agree(request)
        self.drip_seconds = 0.0
        self.hangs = False
        self.endless = False
        self.url = ""

    @property
    def brief(self) -> dict[str, Any]:
        """The document of the last question."""
        return dict(json.loads(self.asked[-1]["messages"][1]["content"]))


def completion(content: Any, *, model: str = MODEL, finish: str = "stop", **message: Any) -> Reply:
    text = content if isinstance(content, str) or content is None else json.dumps(content)
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": model,
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {"prompt_tokens": 300, "completion_tokens": 40, "total_tokens": 340},
    }
    return 200, json.dumps(body).encode()


def says(
    verdict: str, *, clause: str = "", evidence: tuple[str, ...] = ("/action/tool",), summary: str = "So it is."
) -> Reply:
    return completion({"verdict": verdict, "mission_clause": clause, "evidence": list(evidence), "summary": summary})


def agree(request: dict[str, Any]) -> Reply:
    document = json.loads(request["messages"][1]["content"])
    return says("aligned", clause=document["mission"]["goal"][:20])


@contextmanager
def model_server() -> Iterator[ModelServer]:
    script = ModelServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            script.asked.append({"path": self.path, **request})
            script.headers.append({name.lower(): value for name, value in self.headers.items()})
            if script.hangs:
                time.sleep(3)
            status, body = script.play(request)
            self.send_response(status)
            self.send_header("content-type", "application/json")
            if script.endless:
                self.send_header("connection", "close")
                self.end_headers()
                self._pour()
                return
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self._write(body)

        def _write(self, body: bytes) -> None:
            if not script.drip_seconds:
                self.wfile.write(body)
                return
            for byte in body:
                try:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                except OSError:
                    return
                time.sleep(script.drip_seconds)

        def _pour(self) -> None:
            try:
                for _ in range(20_000):
                    self.wfile.write(b" " * 1024)
            except OSError:
                return

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    script.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
