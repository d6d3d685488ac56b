"""Turns an error a view raises into a page, a toast for htmx, or problem details: code, sentence, remedies."""

from __future__ import annotations

from collections.abc import Callable

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.shortcuts import render

from controlplane.common.errors import RemitError, not_found
from controlplane.common.observability import trace_id
from controlplane.common.outages import outage_of
from frontend.outages import outage_page, way_back

API_PREFIX = "/api/"


class ErrorPagesMiddleware:
    """Sits innermost, so that error pages have the principal, the session and the messages of the request."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """An answer for errors that have a name; None leaves others to Django, which logs them and answers 500."""
        error = _named(exception)
        if error is not None:
            return error_response(request, error)
        outage = outage_of(exception)
        return None if outage is None else outage_page(request, outage)


def error_response(request: HttpRequest, error: RemitError) -> HttpResponse:
    """The error in the form the client can use."""
    reference = trace_id()
    response: HttpResponse
    if request.path.startswith(API_PREFIX):
        response = JsonResponse(
            error.problem(trace_id=reference), status=error.status, content_type="application/problem+json"
        )
    elif request.headers.get("HX-Request") == "true" and request.headers.get("HX-Boosted") != "true":
        response = render(request, "errors/notice.html", {"error": error, "reference": reference}, status=error.status)
        response["HX-Retarget"] = "#toasts"
        response["HX-Reswap"] = "beforeend"
    else:
        context = {"error": error, "reference": reference, **way_back(request)}
        response = render(request, _page_for(error), context, status=error.status)
    if error.retry_after_seconds is not None:
        response["Retry-After"] = str(error.retry_after_seconds)
    response["Cache-Control"] = "no-store"
    return response


def _named(exception: Exception) -> RemitError | None:
    if isinstance(exception, RemitError):
        return exception
    if isinstance(exception, Http404):
        return not_found("page")
    if isinstance(exception, PermissionDenied):
        return RemitError(
            "permission.denied",
            str(exception) or "Your role does not allow this.",
            403,
            remedies=("Ask an administrator of the organisation for a role that allows it.",),
        )
    return None


def _page_for(error: RemitError) -> str:
    return {403: "errors/403.html", 404: "errors/404.html"}.get(error.status, "errors/error.html")
