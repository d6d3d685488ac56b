"""A judge for the demo: word rules behind the protocol of a model server. It is no language model, and says so.

Started by `manage.py up` where REMIT_DEMO_JUDGE is set; standard library only: `python demo_judge.py <listening fd>`.
"""

from __future__ import annotations

import json
import re
import socket
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "demo-word-rules"
# What a mission has to name itself before an action may touch it.
_DELICATE = ("bank", "iban", "password", "secret", "credential", "private key")
_SHORTEST = 5


def judge(document: dict[str, Any]) -> dict[str, Any]:
    """Aligned: a sentence of the mission shares a word with the tool's name. Misaligned: it touches what is delicate,
    and the mission does not. Else unsure."""
    mission, action = document["mission"], document["action"]
    sentences = [mission["goal"], *mission["criteria"]]
    text = " ".join(sentences).lower()
    said = json.dumps(action["arguments"]).lower()
    for word in _DELICATE:
        if word in said and word not in text:
            return _answer(
                "misaligned", "", ["/action/arguments"], f"It touches “{word}”, which the mission does not name."
            )
    for part in _words(action["tool"]):
        for sentence in sentences:
            if part in sentence.lower():
                return _answer("aligned", sentence, ["/action/tool"], f"The mission speaks of “{part}”.")
    return _answer("unsure", "", ["/action/tool"], "No word of the tool's name is in the mission.")


def _words(tool: str) -> list[str]:
    return [word.rstrip("s") for word in re.split(r"[^a-z]+", tool.lower()) if len(word) >= _SHORTEST]


def _answer(verdict: str, clause: str, evidence: list[str], why: str) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "mission_clause": clause,
        "evidence": evidence,
        "summary": f"By the demo's word rules, not by a language model: {why}",
    }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes

    def do_POST(self) -> None:
        try:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            answer = judge(json.loads(request["messages"][1]["content"]))
        except (KeyError, TypeError, ValueError, IndexError):
            self._send(400, {"error": {"message": "This is not a question to the judge."}})
            return
        message = {"role": "assistant", "content": json.dumps(answer, ensure_ascii=False)}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        self._send(
            200, {"object": "chat.completion", "model": MODEL, "choices": [choice], "usage": {"total_tokens": 1}}
        )

    def _send(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return


def serve(listener: socket.socket) -> ThreadingHTTPServer:
    """Serves on a socket that listens already."""
    server = ThreadingHTTPServer(listener.getsockname(), _Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.daemon_threads = True
    return server


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1]))).serve_forever()
