"""The page for a database that is away: made without a query, without a session and without the frame."""

from __future__ import annotations

import sys
from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponse, HttpResponseServerError
from django.template import loader

from controlplane.common.errors import RemitError, internal_error
from controlplane.common.http import problem_response
from controlplane.common.observability import trace_id
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
        context = {"error": error, "reference": trace_id(), **way_back(request)}
        response = HttpResponse(loader.render_to_string("errors/503.html", context), status=error.status)
    response["Retry-After"] = str(error.retry_after_seconds or 1)
    response["Cache-Control"] = "no-store"
    return response


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500. It is called while the exception is being handled, wherever in the middleware it arose."""
    exception = sys.exc_info()[1]
    outage = outage_of(exception) if exception else None
    if outage is not None:
        return outage_page(request, outage)
    if request.path.startswith(API_PREFIX):
        return problem_response(internal_error())
    context = {"reference": trace_id(), **way_back(request)}
    return HttpResponseServerError(loader.render_to_string("500.html", context))


def way_back(request: HttpRequest) -> dict[str, str]:
    """What “try again” may lead to. A form's address may answer to POST alone, so it leads to the page of the form."""
    if request.method in ("GET", "HEAD"):
        return {"again": request.get_full_path()}
    came_from = urlsplit(request.headers.get("Referer", ""))
    if came_from.netloc != request.headers.get("Host"):
        return {}
    return {"back": f"{came_from.path}?{came_from.query}" if came_from.query else came_from.path}
