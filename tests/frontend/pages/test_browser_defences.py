"""What every answer tells a browser: nobody frames it, nothing foreign runs in it, its cookies stay with this site."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from controlplane.tenancy.models import User
from tests.conftest import PASSWORD

SignIn = Callable[..., Client]
PAGES = ("home", "missions", "approvals", "agents", "servers", "budgets", "audit", "me", "organisation", "search")


def guarded(response: Any, path: str) -> None:
    policy = {name: rest for name, *rest in map(str.split, response["Content-Security-Policy"].split(";"))}
    assert response["X-Frame-Options"] == "DENY", path
    assert policy["frame-ancestors"] == ["'none'"], path
    assert policy["default-src"] == policy["base-uri"] == ["'none'"], path
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == ["'self'"], path
    assert response["X-Content-Type-Options"] == "nosniff", path
    assert response["Referrer-Policy"] == "same-origin", path
    assert response["Cross-Origin-Opener-Policy"] == "same-origin", path


def test_clickjacking_no_page_can_be_framed_nor_run_what_is_not_ours(
    world: Any, nadia: User, signed_in: SignIn
) -> None:
    browser = signed_in(nadia)
    question = world.ask_credit()
    own = [reverse("approval", args=[question.pk]), reverse("mission", args=[world.mission.pk]), "/nothing/here"]
    for path in (*map(reverse, PAGES), *own):
        guarded(browser.get(path), path)
    guarded(browser.post(reverse("approval-decide", args=[question.pk]), {"answer": "nonsense"}), "a refused form")
    guarded(Client().get(reverse("account_login")), "signing in")
    guarded(Client(enforce_csrf_checks=True).post(reverse("account_login"), {}), "a form without its token")


def test_cookies_are_for_this_site_and_the_session_is_out_of_reach_of_scripts(alice: User) -> None:
    browser = Client()
    browser.get(reverse("account_login"))
    response = browser.post(reverse("account_login"), {"login": alice.email, "password": PASSWORD})
    session = response.cookies[settings.SESSION_COOKIE_NAME]
    assert (session["httponly"], session["samesite"], session["path"], session["domain"]) == (True, "Lax", "/", "")
    assert browser.cookies["csrftoken"]["samesite"] == "Lax"


@pytest.mark.parametrize(("address", "secure"), [("https://remit.example", True), ("http://127.0.0.1", False)])
def test_behind_https_cookies_never_leave_it_and_the_browser_is_told_to_stay(address: str, secure: bool) -> None:
    shown = "SESSION_COOKIE_SECURE", "CSRF_COOKIE_SECURE", "SECURE_HSTS_SECONDS"
    program = (
        "import json, sys; sys.path.insert(0, 'platform'); from controlplane import settings;"
        f"print(json.dumps([bool(getattr(settings, name)) for name in {shown!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PUBLIC_URL": address},
        cwd=settings.BASE_DIR,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [secure] * 3
