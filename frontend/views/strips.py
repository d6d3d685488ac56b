"""The strips of the frame: asked for again while a page is open, and put away where they only say how Remit is set
up. What is broken stays in sight."""

from __future__ import annotations

from django.http import HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from controlplane.common.errors import not_found
from frontend.context import MAY_BE_PUT_AWAY, SESSION_PUT_AWAY
from frontend.pages import PersonRequest, is_part, page


@page
@never_cache
@require_GET
def warnings(request: PersonRequest) -> HttpResponse:
    """Those of the frame as they stand now."""
    return render(request, "frame/warnings.html")


@page
@require_POST
def put_away(request: PersonRequest) -> HttpResponse:
    """For the rest of this session. Nothing of the organisation changes: others see it as before."""
    name = request.POST.get("strip", "")
    if name not in MAY_BE_PUT_AWAY:
        raise not_found("strip")
    request.session[SESSION_PUT_AWAY] = sorted({*request.session.get(SESSION_PUT_AWAY, ()), name})
    if is_part(request):
        return HttpResponse()
    back = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(back, allowed_hosts={request.get_host()})
    return HttpResponseRedirect(back if safe else reverse("home"))
