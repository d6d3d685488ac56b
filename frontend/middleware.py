"""Turns an error a view raises, or a method it does not take, into a page, a toast for htmx, or problem details: code,
sentence, remedies."""

from __future__ import annotations

from collections.abc import Callable

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseNotAllowed, JsonResponse
from django.shortcuts import render
from django.urls import Resolver404, resolve

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
        response = self.get_response(request)
        if isinstance(response, HttpResponseNotAllowed) and not response.content:
            return _not_allowed(request, response["Allow"])
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        """An answer for errors that have a name; None leaves others to Django, which logs them and answers 500."""
        error = _named(exception)
        if error is not None:
            return error_response(request, error)
        outage = outage_of(exception)
        return None if outage is None else outage_page(request, outage)


def _not_allowed(request: HttpRequest, allowed: str) -> HttpResponse:
    """An address that only forms send to, left in the bar or a bookmark; or one of a page that takes no form."""
    response = error_response(
        request,
        RemitError(
            "page.method",
            "Nothing is to be seen at this address: a form sends to it."
            if request.method in ("GET", "HEAD")
            else "This page takes no form. Nothing was done.",
            405,
            remedies=("Open the page it belongs to, and go on from there.",),
        ),
    )
    response["Allow"] = allowed
    return response


def _page_above(request: HttpRequest) -> str:
    """The page that an address without one belongs to: the nearest above it that is known by its ids alone. A word in
    an address may be one that its page does not know."""
    if request.method not in ("GET", "HEAD"):
        return request.path
    parts = request.path.strip("/").split("/")
    for length in range(len(parts) - 1, 0, -1):
        path = "/" + "/".join(parts[:length])
        try:
            found = resolve(path)
        except Resolver404:
            continue
        if not any(isinstance(value, str) for value in found.kwargs.values()):
            return path
    return "/"


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
        if error.status == 405:
            context["above"] = _page_above(request)
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
    return f"errors/{error.status}.html" if error.status in (403, 404, 405) else "errors/error.html"
