"""Signed-in browsers of a person: seen, listed, ended. The rows are django-allauth's; a session lives as long as
Django's own row of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db import transaction
from django.http import HttpRequest, HttpResponse

from controlplane.common.clock import now
from controlplane.common.errors import not_found
from controlplane.tenancy import trail
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from controlplane.tenancy.watching import access_changed

SEEN_EVERY: Final = timedelta(seconds=60)


@dataclass(frozen=True)
class SignedIn:
    """One browser. `device` is what it says of itself, in two words."""

    id: int
    device: str
    user_agent: str
    address: str
    since: datetime
    last_used: datetime
    is_this: bool


class SeenMiddleware:
    """Notes when and from where a session was used, at most once a minute each."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.user.is_authenticated:
            note(request)
        return self.get_response(request)


def note(request: HttpRequest) -> None:
    key = request.session.session_key
    if not key or not cache.add(f"session.seen.{key}", True, SEEN_EVERY.total_seconds()):
        return
    if _address(request) is None:  # a request without an address: allauth would refuse it
        return
    UserSession.objects.create_from_request(request)


def sessions_of(user: User, *, current_key: str | None) -> list[SignedIn]:
    """Sessions that still work, this one first, then the last used."""
    rows = list(UserSession.objects.filter(user_id=user.pk))
    keys = [row.session_key for row in rows]
    alive = set(
        Session.objects.filter(session_key__in=keys, expire_date__gt=now()).values_list("session_key", flat=True)
    )
    found = [
        SignedIn(
            id=row.pk,
            device=device_of(row.user_agent),
            user_agent=row.user_agent,
            address=row.ip,
            since=row.created_at,
            last_used=row.last_seen_at,
            is_this=row.session_key == current_key,
        )
        for row in rows
        if row.session_key in alive
    ]
    return sorted(found, key=lambda item: (not item.is_this, -item.last_used.timestamp()))


def end_session(*, principal: Principal, session_id: int) -> None:
    """Sign one of one's own browsers out. Raises 404 for anybody else's."""
    with transaction.atomic():
        row = UserSession.objects.select_for_update().filter(pk=session_id, user_id=principal.user_id).first()
        if row is None or principal.user_id is None:
            raise not_found("session")
        _end([row.session_key])
        _tell(principal, 1)


def end_other_sessions(*, principal: Principal, current_key: str | None) -> int:
    """Sign out everywhere but here; how many that were."""
    if principal.user_id is None:
        raise not_found("session")
    with transaction.atomic():
        rows = UserSession.objects.filter(user_id=principal.user_id).exclude(session_key=current_key or "")
        ended = _end(list(rows.values_list("session_key", flat=True)))
        if ended:
            _tell(principal, ended)
    return ended


def end_others(request: HttpRequest) -> None:
    """Sign out all of the person's browsers but this one: they were signed in without the second factor that was just
    set up, or with the password that was just replaced. Inside the caller's transaction."""
    rows = UserSession.objects.filter(user_id=request.user.pk).exclude(session_key=request.session.session_key or "")
    _end(list(rows.values_list("session_key", flat=True)))


def end_all_of(user: User) -> int:
    """Every session of the person, also those that were never noted: Django keeps whose they are inside the row."""
    known = set(UserSession.objects.filter(user_id=user.pk).values_list("session_key", flat=True))
    for session in Session.objects.filter(expire_date__gt=now()).exclude(session_key__in=known).iterator():
        if session.get_decoded().get("_auth_user_id") == str(user.pk):
            known.add(session.session_key)
    return _end(list(known))


def device_of(user_agent: str) -> str:
    """ "Firefox on Linux": enough to recognise one's own; the whole text is one hover away."""
    browser = next((name for mark, name in _BROWSERS if mark in user_agent), "Another program")
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), "")
    return f"{browser} on {system}" if system else browser


_BROWSERS: Final = (
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
    ("curl/", "curl"),
    ("python", "Python"),
)
_SYSTEMS: Final = (
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)


def _end(keys: list[str]) -> int:
    users = set(UserSession.objects.filter(session_key__in=keys).values_list("user_id", flat=True))
    UserSession.objects.filter(session_key__in=keys).delete()
    ended, _ = Session.objects.filter(session_key__in=keys).delete()
    for user_id in users:
        access_changed(user_id)
    return ended


def _address(request: HttpRequest) -> str | None:
    try:
        return str(ipaddress.ip_address(str(request.META.get("REMOTE_ADDR") or "")))
    except ValueError:
        return None


def _tell(principal: Principal, count: int) -> None:
    trail.record(
        event="session.ended",
        actor=principal,
        subject_type="person",
        subject_id=principal.id,
        subject_name=principal.name,
        payload={"count": count},
    )
