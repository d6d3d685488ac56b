"""Logs carry the trace and no secret; spans leave only when somewhere to go is configured."""

from __future__ import annotations

import http.server
import io
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import structlog
from celery.app.trace import trace_task
from django.db import transaction

from controlplane.audit.tasks import seal
from controlplane.celery import app
from controlplane.common.observability import configure_logging, incoming_span, outgoing_headers, span, trace_id
from controlplane.common.redaction import REMOVED, redact

ROOT = Path(__file__).resolve().parents[3]
TRACE = "0af7651916cd43dd8448eb211c80319c"
TOKEN = "rmt_pat_" + "aB-_" * 10 + "xyz" + "_0123abcd"


@pytest.fixture
def log_lines():
    """Everything logged through the real configuration, as JSON objects."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # A server that another test ran in this process may have turned its own loggers down.
    uvicorn = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error")]
    before = [(logger, logger.level, logger.propagate) for logger in uvicorn]
    for logger in uvicorn:
        logger.setLevel(logging.NOTSET)
        logger.propagate = True
    configure_logging({"level": "INFO", "format": "json"})
    stream = io.StringIO()
    root.handlers[0].setStream(stream)  # type: ignore[attr-defined]

    def read() -> list[dict]:
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    yield read
    root.handlers[:] = handlers
    root.setLevel(level)
    for logger, was, propagated in before:
        logger.setLevel(was)
        logger.propagate = propagated


def test_every_line_of_a_trace_names_it_whoever_writes(log_lines) -> None:
    with incoming_span("request", {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}), span("inner"):
        structlog.get_logger("ours").info("gate.decided", verdict="deny")
        logging.getLogger("somebody.elses").warning("low on %s", "disk")
        logging.getLogger("uvicorn.error").info("Started")
        logging.getLogger("celery.worker").error("lost")
    structlog.get_logger("ours").info("outside")
    lines = log_lines()
    assert [line.get("trace_id") for line in lines] == [TRACE] * 4 + [None]
    assert lines[0]["verdict"] == "deny"
    assert lines[1]["event"] == "low on disk"
    assert all(line["level"] and line["timestamp"] for line in lines)


def test_a_trace_continues_inside_and_ends_outside() -> None:
    assert trace_id() == ""
    with span("outer"):
        outer = trace_id()
        assert len(outer) == 32
        with span("inner"):
            assert trace_id() == outer
        assert outgoing_headers()["traceparent"].split("-")[1] == outer
    assert trace_id() == ""
    assert outgoing_headers() == {}


@pytest.mark.parametrize(
    "secret",
    [
        TOKEN,
        f"Authorization: Bearer {TOKEN}",
        "Bearer eyJhbGciOiJIUzI1NiJ9.e30.abcdefghijkl",
        "Basic dXNlcjpwYXNzd29yZA==",
        "https://remit.example/sign-in/Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA",
        "postgresql://remit:correcthorse@db/remit",
    ],
)
def test_credentials_in_any_text_are_removed(secret, log_lines) -> None:
    structlog.get_logger("ours").warning("odd", detail=f"before {secret} after")
    logging.getLogger("theirs").error("failed with %s", secret)
    try:
        raise ValueError(secret)
    except ValueError:
        logging.getLogger("theirs").exception("boom")
    text = json.dumps(log_lines())
    assert secret.rsplit(" ", 1)[-1] not in text
    for part in ("aB-_aB", "eyJhbGci", "dXNlcjpw", "Zm9vYmFy", "correcthorse"):
        assert part not in text
    assert REMOVED in text
    assert "before" in text
    assert "after" in text


def test_values_under_secret_names_are_removed_at_any_depth(log_lines) -> None:
    structlog.get_logger("ours").info(
        "request", Authorization="whatever", headers={"Cookie": "remit_session=abc", "accept": "text/html"}, token=None
    )
    line = log_lines()[0]
    assert line["Authorization"] == REMOVED
    assert line["headers"] == {"Cookie": REMOVED, "accept": "text/html"}
    assert line["token"] is None


def test_ordinary_text_is_left_alone() -> None:
    for text in (
        "the bearer of bad news",
        "rmt_run_ is a prefix",
        "https://remit.example/sign-in/",
        "a://b:c/d",
        "12:30@noon",
    ):
        assert redact(text) == text


def test_redaction_takes_no_long_time_on_hostile_text() -> None:
    for text in ("://" + "a:" * 200_000, "Bearer " * 100_000, "rmt_pat_" * 100_000, "/sign-in/" + "a" * 1_000_000):
        redact(text)


@pytest.mark.django_db(transaction=True)
def test_a_task_leaves_after_the_commit_and_continues_the_trace_of_who_woke_it(monkeypatch) -> None:
    """Through the real broker: what a worker would be handed is run as a worker runs it."""
    seen: list[str] = []
    monkeypatch.setattr("controlplane.audit.sealing.seal_all", lambda: seen.append(trace_id()) or 0)
    app.control.purge()
    with app.connection_for_read() as connection, connection.SimpleQueue("celery") as queue:
        with incoming_span("request", {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}), transaction.atomic():
            seal.wake()
            with pytest.raises(queue.Empty):
                queue.get(timeout=0.3)
        message = queue.get(timeout=10)
        message.ack()
    trace_task(seal, message.headers["id"], [], {}, request=dict(message.headers), app=app)
    assert seen == [TRACE]


def test_a_task_that_nobody_traced_has_a_trace_of_its_own(monkeypatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr("controlplane.audit.sealing.seal_all", lambda: seen.append(trace_id()) or 0)
    seal()
    assert len(seen[0]) == 32


def test_spans_are_exported_when_an_endpoint_is_configured() -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        program = (
            "import django; django.setup()\n"
            "from controlplane.common.observability import span\n"
            "with span('gate', verdict='allow'):\n"
            "    with span('gate.policy'): pass\n"
        )
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "controlplane.settings",
            "OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "PYTHONPATH": os.pathsep.join(sys.path),
            "no_proxy": "127.0.0.1",
        }
        subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, check=True, timeout=60)
        server.shutdown()
    assert [path for path, _ in received] == ["/v1/traces"]
    assert b"gate.policy" in received[0][1]
    assert b"verdict" in received[0][1]
