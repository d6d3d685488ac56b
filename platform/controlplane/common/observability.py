"""Structured logs, trace ids and spans of Remit itself. Spans leave only when OTLP_ENDPOINT is set."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from django.http import HttpRequest, HttpResponse
from opentelemetry import trace

tracer = trace.get_tracer("remit")


def configure_logging(config: dict[str, Any]) -> None:
    """Django's LOGGING_CONFIG hook: one line per event on stderr, JSON or text, with the current trace id."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_trace_id,
    ]
    render: Any = structlog.processors.JSONRenderer() if config["format"] == "json" else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config["level"])
    for name in ("uvicorn.access", "celery.app.trace", "celery.worker.strategy", "httpx", "mcp.server.lowlevel.server"):
        logging.getLogger(name).setLevel(logging.WARNING)


def trace_id() -> str:
    """The current trace id as 32 hex digits, or empty outside a trace."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


@contextmanager
def span(name: str, **attributes: str | int | float | bool) -> Iterator[trace.Span]:
    with tracer.start_as_current_span(name, attributes=attributes) as current:
        yield current


def _with_trace_id(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
    if identifier := trace_id():
        event["trace_id"] = identifier
    return event


class RequestContextMiddleware:
    """One span and one log context per Django request; the response names the trace."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        with span("http.request", **{"http.request.method": request.method or "", "url.path": request.path}):
            structlog.contextvars.clear_contextvars()
            response = self.get_response(request)
            if identifier := trace_id():
                response["X-Trace-Id"] = identifier
            return response
