"""The page for a database that is away: made without a query, without a session and without the frame."""

from __future__ import annotations

import sys

from django.http import HttpRequest, HttpResponse, HttpResponseServerError
from django.template import loader

from controlplane.common.errors import RemitError
from controlplane.common.http import problem_response
from controlplane.common.outages import outage_of

API_PREFIX = "/api/"


def outage_page(request: HttpRequest, error: RemitError) -> HttpResponse:
    """The 503 in the form the client can use."""
    if request.path.startswith(API_PREFIX):
        return problem_response(error)
    if request.headers.get("HX-Request") == "true" and request.headers.get("HX-Boosted") != "true":
        response = HttpResponse(loader.render_to_string("errors/notice.html", {"error": error}), status=error.status)
        response["HX-Retarget"] = "#toasts"
        response["HX-Reswap"] = "beforeend"
    else:
        response = HttpResponse(loader.render_to_string("errors/503.html", {"error": error}), status=error.status)
    response["Retry-After"] = str(error.retry_after_seconds or 1)
    response["Cache-Control"] = "no-store"
    return response


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500. It is called while the exception is being handled, wherever in the middleware it arose."""
    exception = sys.exc_info()[1]
    outage = outage_of(exception) if exception else None
    if outage is not None:
        return outage_page(request, outage)
    return HttpResponseServerError(loader.render_to_string("500.html"))
