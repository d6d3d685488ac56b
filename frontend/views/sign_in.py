"""Signing in with a one-time link that an operator printed. GET shows a button; only POST spends the link. A second
factor is asked for all the same."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from controlplane.common.errors import RemitError
from controlplane.tenancy import services as tenancy
from controlplane.tenancy.accounts import sign_in


@never_cache
@require_http_methods(["GET", "POST"])
def with_link(request: HttpRequest, secret: str) -> HttpResponse:
    """A link prefetched by a mail program or a chat must not be spent: GET changes nothing."""
    if request.method == "GET":
        person = tenancy.person_of_sign_in_link(secret=secret)
        if person is None:
            return _spent(request)
        return render(request, "account/sign_in_link.html", {"person": person})
    try:
        user = tenancy.redeem_sign_in_link(secret=secret)
    except RemitError as error:
        if error.status != 410:
            raise
        return _spent(request)
    return sign_in(request, user, redirect_to=reverse("home"))


def _spent(request: HttpRequest) -> HttpResponse:
    """The same words for a link that was used, one that is too old and one that never was."""
    return render(request, "account/sign_in_link_spent.html", status=410)
