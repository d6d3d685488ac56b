"""Signing in with a one-time link that an operator printed. GET shows a button; only POST spends the link."""

from __future__ import annotations

from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from controlplane.tenancy import services as tenancy

_BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@never_cache
@require_http_methods(["GET", "POST"])
def with_link(request: HttpRequest, secret: str) -> HttpResponse:
    """A link prefetched by a mail program or a chat must not be spent: GET changes nothing."""
    if request.method == "GET":
        return render(request, "account/sign_in_link.html")
    user = tenancy.redeem_sign_in_link(secret=secret)
    login(request, user, backend=_BACKEND)
    return redirect("home")
