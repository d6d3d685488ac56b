"""Open pages of whoever loses access, in a browser: they are left at once, and nothing of them stays on the screen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session

from controlplane.tenancy import members
from controlplane.tenancy.models import Membership
from controlplane.tenancy.types import Role
from tests.conftest import PASSWORD

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]
STATIC = Path(__file__).resolve().parents[3] / "frontend" / "static"


@pytest.fixture(autouse=True)
def _plain_static_names(settings) -> None:
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest.fixture
def show(chromium: Any, address: Any, sign_in: Callable[..., str]) -> Iterator[Callable[..., Any]]:
    """`show(alice, "/missions/new")`: a page whose socket is open and listens; complaints of its console are kept."""
    contexts: list[Any] = []

    def open_page(user: Any, path: str) -> Any:
        name, _, value = sign_in(user).partition("=")
        context = chromium.new_context(base_url=address.origin)
        contexts.append(context)
        context.add_cookies([{"name": name, "value": value, "url": address.origin}])
        context.route(
            "**/static/**",
            lambda route: route.fulfill(path=STATIC / urlsplit(route.request.url).path[len("/static/") :]),
        )
        page = context.new_page()
        page.complaints = []
        page.on("console", lambda line: page.complaints.append(line.text) if line.type == "error" else None)
        with page.expect_websocket() as socket:
            page.goto(path)
        socket.value.wait_for_event("framereceived", lambda frame: "subscribed" in str(frame))
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("path", ["/missions/new", "/missions/{mission}"])
def test_a_deactivated_person_is_at_the_sign_in_page_within_seconds(
    path: str, show, alice, bob, as_nadia, mission
) -> None:
    page, other = show(alice, path.format(mission=mission.pk)), show(bob, "/missions")
    began = time.monotonic()
    members.deactivate(principal=as_nadia, user_id=alice.pk)
    page.wait_for_url("**/accounts/login/?next=*", timeout=8000)
    assert time.monotonic() - began < 8
    assert page.complaints == []
    assert mission.title not in page.content()
    assert urlsplit(other.url).path == "/missions"
    assert other.complaints == []


def test_a_page_of_an_organisation_that_one_was_shut_out_of_is_left_for_the_other(
    show, alice, as_nadia, mission, elsewhere
) -> None:
    page = show(alice, f"/missions/{mission.pk}")
    Membership.objects.create(user=alice, organisation=elsewhere, role=Role.AUDITOR)
    members.deactivate(principal=as_nadia, user_id=alice.pk)
    page.get_by_role("heading", name="There is no such mission").wait_for(timeout=8000)
    assert mission.title not in page.content()


def test_a_new_password_signs_no_other_tab_of_the_same_browser_out(show, sign_in, alice) -> None:
    elsewhere = sign_in(alice).split("=")[1]
    UserSession.objects.create(user=alice, ip="192.0.2.1", session_key=elsewhere, user_agent="x")
    page = show(alice, "/missions")
    tab = page.context.new_page()
    tab.goto("/accounts/password/change/")
    tab.locator("[name=oldpassword]").fill(PASSWORD)
    for name in ("password1", "password2"):
        tab.locator(f"[name={name}]").fill("a-longer-password-than-before")
    with page.expect_navigation(timeout=8000):
        tab.locator("form button[type=submit]").last.click()
    page.wait_for_url("**/missions")
    tab.goto("/me")
    assert urlsplit(tab.url).path == "/me"
    assert not Session.objects.filter(session_key=elsewhere).exists()
