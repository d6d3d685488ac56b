"""Erasing a person's data: what it does and what stays, said before, and what it did, said after."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from controlplane.audit import erasure
from controlplane.common.errors import FieldError, RemitError, invalid
from frontend.pages import PersonRequest, page


@page
@require_http_methods(["GET", "POST"])
def erase(request: PersonRequest, user_id: uuid.UUID) -> HttpResponse:
    """For administrators. A GET only asks."""
    plan = erasure.plan(actor=request.principal, user_id=user_id)
    if request.method == "GET" and plan.done:
        messages.info(request, f"{plan.pseudonym} is erased already.")
        return redirect("members")
    error: RemitError | None = None
    if request.method == "POST":
        if request.POST.get("sure") == "yes":
            erased = erasure.erase_person(actor=request.principal, user_id=user_id)
            return render(request, "people/erased.html", {"erased": erased})
        error = invalid(
            "person.not_confirmed", "Nothing was erased.", FieldError("/sure", "tick the box to say that you are sure")
        )
    context = {"plan": plan, "error": error}
    return render(request, "people/erase.html", context, status=error.status if error else 200)
