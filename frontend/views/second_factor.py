"""One's own second factor: set up, turn off, recovery codes. The views are django-allauth's; here they are audited in
the transaction of the change, and open for people who may see nothing before they have one."""

from __future__ import annotations

from typing import Any

from allauth.mfa.recovery_codes.views import GenerateRecoveryCodesView, ViewRecoveryCodesView
from allauth.mfa.totp.views import ActivateTOTPView, DeactivateTOTPView
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET

from controlplane.tenancy import second_factor, sessions


class SetUp(ActivateTOTPView):  # type: ignore[misc]
    template_name = "mfa/set_up.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context_data(**kwargs)
        return {**context, "required": second_factor.is_required(self.request.user)}

    def form_valid(self, form: Any) -> HttpResponse:
        with transaction.atomic():
            response: HttpResponse = super().form_valid(form)
            second_factor.record_change(user=self.request.user, event="second_factor.on")
            second_factor.note_proof(self.request)
            sessions.end_others(self.request)
        return response


class TurnOff(DeactivateTOTPView):  # type: ignore[misc]
    template_name = "mfa/turn_off.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context_data(**kwargs)
        return {**context, "required": second_factor.is_required(self.request.user)}

    def form_valid(self, form: Any) -> HttpResponse:
        if second_factor.is_required(self.request.user):
            messages.error(self.request, "Your organisation asks for a second factor. It stays on.")
            return redirect("me")
        with transaction.atomic():
            response: HttpResponse = super().form_valid(form)
            second_factor.record_change(user=self.request.user, event="second_factor.off")
        return response

    def get_success_url(self) -> str:
        return reverse("me")


class RecoveryCodes(ViewRecoveryCodesView):  # type: ignore[misc]
    template_name = "mfa/recovery_codes.html"


class NewRecoveryCodes(GenerateRecoveryCodesView):  # type: ignore[misc]
    template_name = "mfa/new_recovery_codes.html"

    def form_valid(self, form: Any) -> HttpResponse:
        with transaction.atomic():
            response: HttpResponse = super().form_valid(form)
            second_factor.record_change(user=self.request.user, event="second_factor.codes")
        return response


set_up = never_cache(login_required(SetUp.as_view()))
turn_off = never_cache(login_required(TurnOff.as_view()))
recovery_codes = never_cache(login_required(RecoveryCodes.as_view()))
new_recovery_codes = never_cache(login_required(NewRecoveryCodes.as_view()))


@require_GET
def index(request: HttpRequest) -> HttpResponse:  # noqa: ARG001
    """Where django-allauth sends people back to."""
    return redirect("me")
