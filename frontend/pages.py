"""What every page starts with: a signed-in person inside an organisation, and how a refusal or a form error is shown."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from controlplane.tenancy.types import Principal

P = ParamSpec("P")


class PersonRequest(HttpRequest):
    """A request whose principal is known to be there."""

    principal: Principal


def page(
    view: Callable[Concatenate[PersonRequest, P], HttpResponse],
) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
    """Only for signed-in people with a membership. Others are sent to sign in, or told that nobody has invited them yet."""

    @functools.wraps(view)
    def guarded(request: Any, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if request.principal is None:
            if request.user.is_authenticated:
                return render(request, "errors/no_organisation.html", status=403)
            return redirect_to_login(request.get_full_path())
        return view(request, *args, **kwargs)

    return guarded


def is_part(request: HttpRequest) -> str:
    """The id of the part an htmx request wants, or empty for a whole page. Partials are the includes the page itself uses."""
    return request.headers.get("HX-Target", "") if request.headers.get("HX-Request") == "true" else ""


def id_of(value: str | None) -> uuid.UUID | None:
    """An id from a query string; None for anything that is not one."""
    try:
        return uuid.UUID(value) if value else None
    except ValueError:
        return None
