"""How django-allauth behaves here: people are invited, they don't sign themselves up; who was deactivated stays out."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import structlog
from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.utils import perform_login
from allauth.core import context
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from controlplane.tenancy import second_factor
from controlplane.tenancy.models import Membership, User

log = structlog.get_logger(__name__)


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    def is_open_for_signup(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False

    def get_reset_password_from_key_url(self, key: str) -> str:
        """At the public address: the host of a request is whatever its sender wrote."""
        asked = urlsplit(super().get_reset_password_from_key_url(key))
        return f"{settings.CONFIG.public_url}{asked.path}"

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """What becomes of a mail is for the log: the page says the same of every address."""
        try:
            super().send_mail(template_prefix, email, context)
        except OSError as error:  # smtplib's errors and the network's
            log.warning("mail.not_sent", what=template_prefix.rpartition("/")[2], error=type(error).__name__)

    def pre_login(self, request: HttpRequest, user: User, **hooks: Any) -> HttpResponse | None:
        """Who was deactivated in every organisation they have learns it once they proved who they are."""
        held = Membership.objects.filter(user=user)
        if held.exists() and not Membership.objects.standing().filter(user=user).exists():
            return self.respond_user_inactive(request, user)  # type: ignore[no-any-return]
        return super().pre_login(request, user, **hooks)  # type: ignore[no-any-return]

    def reauthenticate(self, user: User, password: str) -> bool:
        """With the same limits as signing in, for accounts without a row of allauth's addresses too."""
        found = self.authenticate(context.request, email=user.email, password=password)
        return found is not None and found.pk == user.pk

    def is_reauthentication_required(self, *, app: str, **options: Any) -> bool:
        if context.request is not None and second_factor.proved_lately(context.request):
            return False
        return bool(super().is_reauthentication_required(app=app, **options))


def sign_in(request: HttpRequest, user: User, *, redirect_to: str) -> HttpResponse:
    """Signs in somebody who proved who they are with a link; a second factor is still asked for."""
    return perform_login(request, user, email_verification="none", redirect_url=redirect_to)  # type: ignore[no-any-return]
