"""The second factor of people: codes of an authenticator app, and recovery codes. django-allauth does the work; here is
how secrets are kept, who has to have one, and how an administrator or operator takes a lost one away."""

from __future__ import annotations

import base64
import hashlib
import uuid
from typing import Any

from allauth.account.internal.flows.login import get_authentication_records, record_authentication
from allauth.core import context
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from allauth.mfa.signals import authentication_failed
from cryptography.fernet import Fernet
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest

from controlplane.common.clock import now
from controlplane.common.errors import RemitError, not_found
from controlplane.tenancy import sessions, trail
from controlplane.tenancy.models import Membership, Organisation, User
from controlplane.tenancy.types import Permission, Principal, PrincipalKind, system_principal

FRESH_SECONDS = 300


class MFAAdapter(DefaultMFAAdapter):  # type: ignore[misc]
    """Secrets of apps and seeds of codes are useless to who steals the database without SECRET_KEY."""

    def encrypt(self, text: str) -> str:
        return _cipher().encrypt(text.encode()).decode()

    def decrypt(self, encrypted_text: str) -> str:
        return _cipher().decrypt(encrypted_text.encode()).decode()


def is_on(user_id: uuid.UUID) -> bool:
    return bool(Authenticator.objects.filter(user_id=user_id, type=Authenticator.Type.TOTP).exists())


def is_missing(principal: Principal) -> bool:
    """The organisation asks for a second factor and the person has none: nothing but setting one up is possible."""
    return principal.second_factor_required and not is_on(principal.id)


def is_required(user: User) -> bool:
    """By at least one organisation of the person."""
    held = Membership.objects.standing().filter(user=user)
    return Organisation.objects.filter(pk__in=held.values("organisation_id"), second_factor_required=True).exists()


def unused_codes(user: User) -> int | None:
    """How many recovery codes are left; None when there are none at all. Never the codes."""
    codes = Authenticator.objects.filter(user=user, type=Authenticator.Type.RECOVERY_CODES).first()
    return len(codes.wrap().get_unused_codes()) if codes else None


def proved_lately(request: HttpRequest) -> bool:
    """Whoever signed in within the last five minutes need not say again who they are."""
    records = get_authentication_records(request, request.user)
    return bool(records) and now().timestamp() - float(records[-1].get("at", 0)) < FRESH_SECONDS


def note_proof(request: HttpRequest) -> None:
    """A code that turned the factor on proves as much as one at sign-in: it is not asked for again at once."""
    record_authentication(request, request.user, "mfa", type=Authenticator.Type.TOTP)


def record_change(*, user: User, event: str) -> None:
    """Into the trail of each organisation of the person, inside the caller's transaction."""
    for organisation in _organisations(user):
        trail.record(
            event=event,
            actor=Principal(
                kind=PrincipalKind.USER, id=user.pk, user_id=user.pk, name=str(user), organisation_id=organisation
            ),
            subject_type="person",
            subject_id=user.pk,
            subject_name=str(user),
        )


def reset(*, principal: Principal, user_id: uuid.UUID) -> None:
    """Take a lost second factor away, so that its owner can set up another; their sessions end. Raises 403, 404, and
    409 `second_factor.elsewhere` for people other organisations rely on too."""
    principal.require(Permission.MEMBER_WRITE)
    with transaction.atomic():
        user = User.objects.select_for_update(of=("self",)).filter(pk=user_id).first()
        if user is None or principal.organisation_id not in _organisations(user):
            raise not_found("member")
        if user.pk == principal.user_id:
            raise RemitError("member.own_access", "Turn off your own second factor on your own page.", 409)
        others = [found for found in _organisations(user) if found != principal.organisation_id]
        if others and principal.kind is not PrincipalKind.SYSTEM:
            raise RemitError(
                "second_factor.elsewhere",
                f"{user} belongs to another organisation too, which relies on the same second factor.",
                409,
                remedies=("Whoever runs this Remit can do it: ./manage.py signin --reset-second-factor.",),
            )
        removed, _ = Authenticator.objects.filter(user=user).delete()
        if not removed:
            return
        sessions.end_all_of(user)
        trail.record(
            event="second_factor.reset",
            actor=principal,
            subject_type="person",
            subject_id=user.pk,
            subject_name=str(user),
        )


def reset_by_operator(*, user: User) -> None:
    """The same from the command line of whoever runs this Remit, on record in each organisation."""
    with transaction.atomic():
        removed, _ = Authenticator.objects.filter(user=user).delete()
        if not removed:
            return
        sessions.end_all_of(user)
        for organisation in _organisations(user):
            trail.record(
                event="second_factor.reset",
                actor=system_principal(organisation_id=organisation, name="Operator"),
                subject_type="person",
                subject_id=user.pk,
                subject_name=str(user),
            )


def register() -> None:
    """The hook of allauth that a wrong code passes through."""
    authentication_failed.connect(_failed, dispatch_uid="tenancy.second_factor_failed")


def _failed(*, user: User, **_: Any) -> None:
    request = context.request
    client = str(request.META.get("REMOTE_ADDR") or "")[:64] if request is not None else ""
    with transaction.atomic():
        for organisation in _organisations(user):
            trail.record(
                event="second_factor.failed",
                actor=system_principal(organisation_id=organisation),
                subject_type="person",
                subject_id=user.pk,
                subject_name=str(user),
                payload={"client": client},
            )


def _organisations(user: User) -> list[uuid.UUID]:
    found = Membership.objects.filter(user=user).order_by("organisation_id")
    return list(found.values_list("organisation_id", flat=True).distinct())


def _cipher() -> Fernet:
    key = hashlib.sha256(b"second-factor:" + settings.SECRET_KEY.encode()).digest()
    return Fernet(base64.urlsafe_b64encode(key))
