"""Sign-in, sign-out and failed attempts into the audit trail of every organisation the person belongs to."""

from __future__ import annotations

from typing import Any

import structlog
from allauth.account.signals import password_changed, password_reset, password_set
from django.contrib import messages
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db import transaction
from django.http import HttpRequest

from controlplane.tenancy import joining, services, sessions, trail
from controlplane.tenancy.middleware import SESSION_ORGANISATION
from controlplane.tenancy.models import Organisation, User
from controlplane.tenancy.types import system_principal

log = structlog.get_logger(__name__)


def register() -> None:
    """The hooks that Django and allauth offer; every way of signing in passes through them."""
    user_logged_in.connect(_signed_in, dispatch_uid="tenancy.signed_in")
    user_logged_out.connect(_signed_out, dispatch_uid="tenancy.signed_out")
    user_login_failed.connect(_failed, dispatch_uid="tenancy.sign_in_failed")
    password_reset.connect(_password_reset, dispatch_uid="tenancy.password_reset")
    for signal in (password_changed, password_set):
        signal.connect(_password_changed, dispatch_uid="tenancy.password_changed")


def _signed_in(*, user: User, request: HttpRequest | None = None, **_: Any) -> None:
    principal, session = services.principal_of_user(user=user), getattr(request, "session", None)
    if session is not None and principal is not None:  # kept: joining another organisation leads nobody's pages there
        session[SESSION_ORGANISATION] = str(principal.organisation_id)
    _tell("person.signed_in", user, request)


def _signed_out(*, user: User | None, request: HttpRequest | None = None, **_: Any) -> None:
    if user is not None:  # someone whose session had already ended
        _tell("person.signed_out", user, request)


def _password_reset(*, user: User, request: HttpRequest | None = None, **_: Any) -> None:
    """The link was mailed: whoever used it reads the mail of the address. Sessions begun with the old password opened
    nothing any more; they leave the list too."""
    with transaction.atomic():
        tokens_ended = joining.note_proof(user=user)
        if tokens_ended is None:
            sessions.end_all_of(user)
        _tell("person.password_changed", user, request)
    tell_tokens_ended(request, tokens_ended or 0)


def _password_changed(*, user: User, request: HttpRequest | None = None, **_: Any) -> None:
    with transaction.atomic():
        if request is not None:
            sessions.end_others(request)
        _tell("person.password_changed", user, request)


def tell_tokens_ended(request: HttpRequest | None, ended: int) -> None:
    """Their owner, who may have made them: scripts that used them stand still."""
    if request is not None and ended:
        what = "Your personal token was" if ended == 1 else f"Your {ended} personal tokens were"
        messages.warning(
            request, f"{what} revoked: it was not certain until now that this account is yours. Make new ones."
        )


def _failed(*, credentials: dict[str, Any], request: HttpRequest | None = None, **_: Any) -> None:
    """An address nobody has belongs to no organisation: it goes to the log, without the address, and no further."""
    address = str(credentials.get("email") or credentials.get("username") or "")[:254]
    user = User.objects.filter(email__iexact=address).first() if address and "\x00" not in address else None
    if user is None:
        log.warning("sign_in.failed_for_nobody")
        return
    _tell("person.sign_in_failed", user, request)


def _tell(event: str, user: User, request: HttpRequest | None) -> None:
    client = str(request.META.get("REMOTE_ADDR") or "")[:64] if request is not None else ""
    with transaction.atomic():
        for organisation in Organisation.objects.filter(memberships__user=user).distinct().order_by("pk"):
            # One who was deactivated since has no principal any more; Remit says it then.
            actor = services.principal_of_user(user=user, organisation_id=organisation.pk)
            trail.record(
                event=event,
                actor=actor or system_principal(organisation_id=organisation.pk),
                subject_type="person",
                subject_id=user.pk,
                subject_name=str(user),
                payload={"client": client},
            )
