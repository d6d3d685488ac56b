"""The pages of sign-in and settings in Chromium: they fit, axe finds nothing, and signing in elsewhere works under the
content security policy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from allauth.usersessions.models import UserSession
from django.conf import settings as django_settings
from django.contrib.sessions.models import Session
from django.urls import reverse

from controlplane.common.clock import now
from controlplane.settings import oidc_providers
from controlplane.tenancy import members
from controlplane.tenancy.credentials import issue_personal_token, issue_service_token
from controlplane.tenancy.invitations import invite
from controlplane.tenancy.models import Organisation, Token, User
from controlplane.tenancy.types import Permission, Principal, Role
from tests.conftest import PASSWORD
from tests.frontend.pages.entering import code
from tests.frontend.pages.test_in_the_browser import RULES, Show, show  # noqa: F401 - a fixture

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def settled(
    world: Any, nadia: User, as_nadia: Principal, alice: User, bob: User, dana: User, finn: User, make_person: Any
) -> dict[str, str]:
    """Northwind with people in every state; the addresses of the pages worth looking at."""
    eve = make_person("Eve", world.organisation, Role.AUDITOR)
    members.deactivate(principal=as_nadia, user_id=eve.pk)
    TOTP.activate(alice, generate_totp_secret())
    members.add_member(principal=as_nadia, user=bob, role=Role.FINANCE)
    soon = now() + timedelta(days=30)
    scopes = {Permission.MISSION_VIEW, Permission.AGENT_VIEW, Permission.COST_VIEW}
    issue_personal_token(principal=world.owner, user=alice, name="Nightly report", expires_at=soon, scopes=scopes)
    mine, _ = issue_personal_token(principal=as_nadia, user=nadia, name="Laptop", expires_at=soon, scopes=scopes)
    issue_service_token(principal=as_nadia, name="Warehouse export", expires_at=soon, scopes={Permission.AUDIT_VIEW})
    gone, _ = issue_personal_token(principal=as_nadia, user=nadia, name="Old laptop", expires_at=soon, scopes=scopes)
    Token.objects.filter(pk=gone.pk).update(revoked_at=now())
    secret = invite(principal=as_nadia, email="ines@acme.example", roles=[(world.team.pk, Role.BUILDER)])[1]
    invite(principal=as_nadia, email="late@acme.example", roles=[(None, Role.AUDITOR)])
    agents = ("Mozilla/5.0 (iPhone) Safari/604.1", "Mozilla/5.0 (Windows NT 10.0) Firefox/140.0")
    for number, agent in enumerate(agents):
        key = f"{number}" * 32
        Session.objects.create(session_key=key, session_data="", expire_date=soon)
        UserSession.objects.create(user=nadia, ip=f"198.51.100.{number + 1}", session_key=key, user_agent=agent)
    return {
        "members": reverse("members"),
        "roles": reverse("roles"),
        "invite": reverse("member-invite"),
        "member": reverse("member", args=[alice.pk]),
        "member-deactivated": reverse("member", args=[eve.pk]),
        "tokens": reverse("tokens"),
        "token-new": reverse("token-new"),
        "token-rotate": reverse("token-rotate", args=[mine.pk]),
        "organisation": reverse("organisation"),
        "me": reverse("me"),
        "members-none": reverse("members") + "?q=nobody",
        "invitation": reverse("invitation", args=[secret]),
        "invitation-spent": reverse("invitation", args=["spent"]),
    }


@pytest.mark.parametrize(("theme", "width"), [("light", 1600), ("dark", 360)])
def test_the_pages_of_settings_are_accessible_and_fit(
    settled: dict[str, str],
    show: Show,  # noqa: F811
    nadia: User,
    theme: str,
    width: int,
) -> None:
    page = show(nadia, reverse("members"), width=width, theme=theme)
    wrong: list[str] = []
    for name, path in settled.items():
        page.goto(path, wait_until="load")
        wrong += look(page, name, theme, width)
    page.goto(settled["invite"])
    page.fill("[name=email]", "new@acme.example")
    page.check("[name=held] >> nth=0")
    page.click("main form button.primary")
    wrong += look(page, "invited", theme, width)
    page.goto(settled["token-new"])
    page.fill("[name=name]", "Script")
    page.click("main form button.primary")
    wrong += look(page, "token-shown", theme, width)
    page.goto(settled["member"])
    page.click("[data-opens=confirm-deactivate]")
    wrong += look(page, "deactivate", theme, width)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("theme", "width"), [("light", 1600), ("dark", 360)])
def test_setting_up_a_second_factor_is_accessible_and_fits(
    show: Show,  # noqa: F811
    make_person: Callable[..., User],
    northwind: Organisation,
    theme: str,
    width: int,
) -> None:
    ada = make_person("Ada", northwind, Role.ADMIN)
    page = show(None, reverse("account_login"), width=width, theme=theme)
    page.fill("[name=login]", ada.email)
    page.fill("[name=password]", PASSWORD)
    page.click("main button.primary")
    page.goto(reverse("mfa_activate_totp"))
    wrong = look(page, "second-factor", theme, width)
    page.click("summary")
    secret = page.locator(".secret code").inner_text()
    page.fill("[name=code]", code(secret))
    page.click("main button.primary")
    page.wait_for_url(f"**{reverse('mfa_view_recovery_codes')}")
    wrong += look(page, "recovery-codes", theme, width)
    page.goto(reverse("mfa_generate_recovery_codes"))
    wrong += look(page, "recovery-codes-new", theme, width)
    page.goto(reverse("mfa_deactivate_totp"))
    wrong += look(page, "second-factor-off", theme, width)
    assert not wrong, "\n".join(wrong)


def test_signing_in_elsewhere_works_in_a_browser_under_the_content_security_policy(
    chromium: Any, live_server: Any, alice: User, settings: Any
) -> None:
    script = Path(__file__).parents[2] / "platform" / "tenancy" / "openid_provider.py"
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        issuer = process.stdout.readline().strip()
        settings.SOCIALACCOUNT_PROVIDERS = oidc_providers(issuer, "remit", "a-secret-of-the-client", "Acme ID")
        settings.CONFIG = django_settings.CONFIG.model_copy(update={"public_url": live_server.url})
        person = {"sub": "alice-1", "claims": {"email": alice.email, "email_verified": True}}
        requests.post(f"{issuer}/person", json=person, timeout=5)
        context = chromium.new_context(base_url=live_server.url, viewport={"width": 1600, "height": 900})
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(reverse("account_login"))
        wrong = look(page, "sign-in", "light", 1600)
        page.click("text=Sign in with Acme ID")
        page.wait_for_url(f"{live_server.url}/")
        assert page.locator(".who").inner_text().strip() == "Alice"
        assert not wrong, "\n".join(wrong)
        assert [text for text in complaints if "Content Security Policy" in text] == []
        context.close()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def look(page: Any, name: str, theme: str, width: int) -> list[str]:
    """What is wrong with the page on screen."""
    from axe_playwright_python.sync_playwright import Axe

    if folder := os.environ.get("REMIT_SCREENSHOTS"):
        page.screenshot(path=Path(folder, f"{name}-{theme}-{width}.png"), full_page=True)
    wrong = []
    page.wait_for_load_state()
    page.set_viewport_size({"width": width, "height": page.evaluate("document.documentElement.scrollHeight")})
    found = Axe().run(page, options={"runOnly": RULES})
    if found.violations_count:
        wrong.append(f"{name}: {found.generate_report()}")
    wrong += [f"{name}: {complaint}" for complaint in getattr(page, "complaints", []) if "410" not in complaint]
    getattr(page, "complaints", []).clear()
    if page.evaluate("document.documentElement.scrollWidth") > width:
        wrong.append(f"{name} is wider than {width}")
    page.set_viewport_size({"width": width, "height": 900})
    return wrong
