"""The one error handler of this edge: whatever is raised becomes problem details."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied, RequestDataTooBig
from django.http import Http404, UnreadablePostError
from rest_framework import exceptions
from rest_framework.response import Response

from controlplane.common.errors import FieldError, RemitError, internal_error, invalid, not_found
from controlplane.common.http import PROBLEM_TYPE, problem_headers
from controlplane.common.observability import trace_id
from controlplane.common.outages import outage_of
from frontend.api.parsing import too_large

log = structlog.get_logger(__name__)


def problem_details(exception: Exception, context: Mapping[str, Any]) -> Response:
    """DRF's EXCEPTION_HANDLER. An error without a name tells nothing but the trace id, under which the log has it."""
    error = named(exception)
    if error is None:
        log.exception("api.failed", view=type(context.get("view")).__name__)
        error = internal_error()
    return Response(
        error.problem(trace_id=trace_id()),
        status=error.status,
        headers=problem_headers(error),
        content_type=PROBLEM_TYPE,
    )


def named(exception: Exception) -> RemitError | None:
    """The error with its name; None for what nobody foresaw."""
    match exception:
        case RemitError():
            return exception
        case exceptions.ValidationError():
            return invalid("request.invalid", "Some fields can't be used as they are.", *fields(exception.detail))
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return RemitError(
                "token.missing",
                "Send a token as “Authorization: Bearer rmt_…”, or sign in.",
                401,
                remedies=("Make a token on your tokens page.",),
            )
        case exceptions.MethodNotAllowed():
            return RemitError("request.method", str(exception.detail), 405, remedies=("See the Allow header.",))
        case exceptions.NotAcceptable():
            return RemitError(
                "request.not_acceptable", "Answers are JSON.", 406, remedies=("Send Accept: application/json.",)
            )
        case exceptions.UnsupportedMediaType():
            return RemitError(
                "body.not_json", "The body must be JSON.", 415, remedies=("Send Content-Type: application/json.",)
            )
        case exceptions.ParseError():
            return RemitError("request.malformed", str(exception.detail), 400)
        case Http404() | exceptions.NotFound():
            return not_found("page")
        case PermissionDenied() | exceptions.PermissionDenied():
            return RemitError("permission.denied", "Your role does not allow this.", 403)
        case RequestDataTooBig():
            return too_large()
        case UnreadablePostError():
            return RemitError("body.cut_off", "The client went away in the middle of the body.", 400)
    return outage_of(exception)


def fields(detail: Any, pointer: str = "") -> Iterator[FieldError]:
    """DRF's nested details as JSON pointers."""
    if isinstance(detail, Mapping):
        for name, inner in detail.items():
            own = pointer if name == "non_field_errors" else f"{pointer}/{_escaped(str(name))}"
            yield from fields(inner, own)
    elif isinstance(detail, list):
        for index, inner in enumerate(detail):
            # A list of errors of one field, or of the details of its items.
            yield from fields(inner, f"{pointer}/{index}" if isinstance(inner, Mapping) and inner else pointer)
    elif detail:
        yield FieldError(pointer, str(detail))


def _escaped(name: str) -> str:
    return name[:80].replace("~", "~0").replace("/", "~1")
