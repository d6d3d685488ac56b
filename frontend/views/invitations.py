"""Accepting an invitation: with the account one has, or by making one. GET changes nothing, so a prefetched link stays
whole."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from controlplane.common.errors import RemitError
from controlplane.tenancy import invitations, oidc
from controlplane.tenancy.accounts import sign_in
from controlplane.tenancy.middleware import go_to_organisation
from frontend.form_errors import show_error


class AccountForm(forms.Form):
    name = forms.CharField(label="Your name", max_length=120, widget=forms.TextInput(attrs={"autocomplete": "name"}))
    password = forms.CharField(
        label="Password",
        max_length=1024,
        strip=False,
        help_text="At least 12 characters, not one of the common ones.",
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
    )


@never_cache
@require_http_methods(["GET", "POST"])
def offer(request: HttpRequest, secret: str) -> HttpResponse:
    try:
        found = invitations.look_up(secret=secret)
    except RemitError:
        return render(request, "account/invitation_spent.html", status=410)
    signed_in = request.user if request.user.is_authenticated else None
    form = AccountForm(request.POST or None) if found.account is None and signed_in is None else None
    error: RemitError | None = None
    if request.method == "POST" and signed_in is not None:
        try:
            accepted = invitations.accept(secret=secret, user=signed_in)
        except RemitError as refused:
            error = refused
        else:
            go_to_organisation(request, accepted.organisation_id)
            messages.success(request, f"You joined {found.organisation}.")
            return redirect("home")
    elif request.method == "POST" and form is not None and form.is_valid():
        try:
            user = invitations.accept_as_new_person(secret=secret, **form.cleaned_data)
        except RemitError as refused:
            if refused.status == 410:
                return render(request, "account/invitation_spent.html", status=410)
            error = show_error(form, refused)
        else:
            return sign_in(request, user, redirect_to=reverse("home"))
    context = {
        "offer": found,
        "form": form,
        "error": error,
        "signed_in": signed_in,
        "is_theirs": signed_in is not None and signed_in.email.lower() == found.invitation.email.lower(),
        "here": request.path,
        "oidc": oidc.button(),
    }
    status = error.status if error else 422 if form is not None and form.errors else 200
    return render(request, "account/invitation.html", context, status=status)
