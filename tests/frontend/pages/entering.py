"""How tests sign in as a browser does, and what they look at afterwards."""

from __future__ import annotations

from typing import Any

from allauth.mfa.totp.internal.auth import (
    format_hotp_value,
    hotp_value,
    yield_hotp_counters_from_time,
)
from django.test import Client
from django.urls import reverse

from controlplane.audit.models import Entry
from controlplane.tenancy.models import User
from tests.conftest import PASSWORD


def html(response: Any) -> str:
    return response.content.decode()


def log_in(browser: Client, user: User, password: str = PASSWORD, **more: str) -> Any:
    return browser.post(reverse("account_login"), {"login": user.email, "password": password, **more})


def who(browser: Client) -> str | None:
    return browser.session.get("_auth_user_id")


def code(secret: str) -> str:
    """What the app shows now; one step late is still accepted."""
    counters = list(yield_hotp_counters_from_time())
    return str(format_hotp_value(hotp_value(secret, counters[len(counters) // 2])))


def events(*which: str) -> list[str]:
    return list(Entry.objects.filter(event__in=which).order_by("pk").values_list("event", flat=True))
