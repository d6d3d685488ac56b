"""Structured logs, trace ids and spans of Remit itself. Spans leave only when OTLP_ENDPOINT is set."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog
from django.http import HttpRequest, HttpResponse
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from controlplane.common import metrics
from controlplane.common.redaction import redact, redact_event

tracer = trace.get_tracer("remit")
_PROPAGATOR = TraceContextTextMapPropagator()
_QUIET = (
    "uvicorn.access",
    "celery.app.trace",
    "celery.beat",  # a line for every sweep, several a second
    "celery.worker.strategy",
    "httpx",
    "mcp.server.lowlevel.server",
)
_exporting = False


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
                redact_event,
                structlog.processors.format_exc_info,
                lambda logger, method, event: redact(render(logger, method, event)),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config["level"])
    for name in (
        "uvicorn",
        "uvicorn.error",
        "uvicorn.access",
        "celery",
    ):  # started by their own commands, they bring handlers
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)


def configure_tracing(*, endpoint: str) -> None:
    """Once per process: trace ids always, spans recorded and exported only to an OTLP endpoint (“https://host:4318”)."""
    global _exporting
    # Imported here: a third of a second that commands without spans don't pay.
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider, sampling

    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    if not endpoint:
        trace.set_tracer_provider(TracerProvider(sampler=sampling.ALWAYS_OFF, shutdown_on_exit=False))
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    address = endpoint if endpoint.endswith("/v1/traces") else endpoint.rstrip("/") + "/v1/traces"
    provider = TracerProvider(resource=Resource.create({"service.name": "remit"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=address)))
    trace.set_tracer_provider(provider)
    _exporting = True


def trace_id() -> str:
    """The current trace id as 32 hex digits, or empty outside a trace."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


@contextmanager
def span(name: str, **attributes: str | int | float | bool) -> Iterator[trace.Span]:
    """A step of what is going on. Inside a trace that nobody records it costs nothing but this check."""
    current = trace.get_current_span()
    if not _exporting and current.get_span_context().is_valid:
        yield current
        return
    with tracer.start_as_current_span(name, attributes=attributes) as current:
        yield current


@contextmanager
def incoming_span(
    name: str, headers: Mapping[str, str], **attributes: str | int | float | bool
) -> Iterator[trace.Span]:
    """The outermost span of a request or task; continues the caller's trace where `headers` has a `traceparent`."""
    parent = _PROPAGATOR.extract({key: headers[key] for key in ("traceparent", "tracestate") if key in headers})
    with tracer.start_as_current_span(name, context=parent, attributes=attributes) as current:
        yield current


def outgoing_headers() -> dict[str, str]:
    """`traceparent` of the current span for a task or request that this one causes; empty outside a trace."""
    headers: dict[str, str] = {}
    _PROPAGATOR.inject(headers)
    return headers


def _with_trace_id(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if identifier := trace_id():
        event["trace_id"] = identifier
    return event


class RequestContextMiddleware:
    """One span, one log context and one count per Django request; the response names the trace."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        status = 500
        attributes = {"http.request.method": request.method or "", "url.path": redact(request.path)}
        headers = {name: request.headers[name] for name in ("traceparent", "tracestate") if name in request.headers}
        with incoming_span("http.request", headers, **attributes):
            structlog.contextvars.clear_contextvars()
            try:
                response = self.get_response(request)
                status = response.status_code
                if identifier := trace_id():
                    response["X-Trace-Id"] = identifier
                return response
            finally:
                metrics.count_request("pages", request.method or "", status, time.perf_counter() - started)
