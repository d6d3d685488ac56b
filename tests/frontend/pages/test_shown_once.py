"""Pages that show a secret once: a reload of the answer, or a second click, makes nothing again."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.idempotency.models import IdempotencyKey
from controlplane.tenancy import invitations
from controlplane.tenancy.credentials import issue_personal_token
from controlplane.tenancy.models import Invitation, Token, User
from controlplane.tenancy.types import Permission, Principal, Role

from .entering import html

SignIn = Callable[..., Client]
pytestmark = pytest.mark.usefixtures("_fresh_caches")


def key_in(page: str, action: str = "") -> str:
    """The key of the form that is sent to `action`."""
    form = page[page.index(f'action="{action}"') :] if action else page
    found = re.search(r'name="key" value="([0-9a-f-]{36})"', form)
    assert found is not None
    return found[1]


def sent_twice(browser: Client, path: str, body: dict[str, Any], form_at: str = "") -> Any:
    """The second answer to one and the same form."""
    key = key_in(html(browser.get(form_at or path)), path)
    first = browser.post(path, {**body, "key": key})
    assert first.status_code in (200, 302), html(first)
    entries = Entry.objects.count()
    again = browser.post(path, {**body, "key": key})
    assert again.status_code == 409
    assert "This was made already, and is shown once." in html(again)
    assert not re.search(r"rmt_[a-z]{3}_[A-Za-z0-9_-]{43}|/invitations/[A-Za-z0-9_-]{43}", html(again))
    assert Entry.objects.count() == entries
    assert not any(row.answer and b"rmt_" in bytes(row.answer) for row in IdempotencyKey.objects.all())
    return again


@pytest.mark.parametrize("kind", ["pat", "svc"])
def test_a_reload_makes_no_other_token(kind: str, nadia: User, signed_in: SignIn) -> None:
    browser = signed_in(nadia)
    path = reverse("token-new") + ("?kind=svc" if kind == "svc" else "")
    body = {"name": "CI", "days": "7", "scopes": ["mission.view"]}
    again = sent_twice(browser, path, body)
    assert Token.objects.filter(kind=kind).count() == 1
    # What was refused may be sent on purpose: the form has a key of its own.
    assert browser.post(path, {**body, "key": key_in(html(again), path)}).status_code == 200
    assert Token.objects.filter(kind=kind).count() == 2


def test_a_form_that_was_refused_may_be_sent_again_as_it_is(alice: User, signed_in: SignIn) -> None:
    browser, path = signed_in(alice), reverse("token-new")
    body = {"name": " ", "days": "7", "scopes": ["mission.view"], "key": key_in(html(browser.get(path)), path)}
    assert browser.post(path, body).status_code == 422
    assert browser.post(path, {**body, "name": "CI"}).status_code == 200
    assert Token.objects.count() == 1


def test_a_reload_rotates_no_second_time(alice: User, as_alice: Principal, signed_in: SignIn) -> None:
    token, _ = issue_personal_token(
        principal=as_alice,
        user=alice,
        name="CI",
        expires_at=now() + timedelta(days=7),
        scopes={Permission.MISSION_VIEW},
    )
    sent_twice(signed_in(alice), reverse("token-rotate", args=[token.pk]), {"overlap": "24"})
    assert Token.objects.filter(replaces=token).count() == 1


def test_a_reload_kills_no_link_that_was_passed_on(nadia: User, as_nadia: Principal, signed_in: SignIn) -> None:
    browser = signed_in(nadia)
    sent_twice(browser, reverse("member-invite"), {"email": "ines@acme.example", "held": ["all:auditor"]})
    assert Invitation.objects.count() == 1
    made, _ = invitations.invite(principal=as_nadia, email="olu@acme.example", roles=[(None, Role.AUDITOR)])
    path = reverse("invitation-operate", args=[made.pk, "renew"])
    sent_twice(browser, path, {}, form_at=reverse("members"))


def test_a_second_click_issues_no_second_credential(world: Any, alice: User, signed_in: SignIn) -> None:
    path = reverse("credential-new", args=[world.agent.pk])
    sent_twice(signed_in(alice), path, {"name": "Laptop", "days": "30"})
    assert Token.objects.filter(kind="agt").count() == 1


def test_a_key_counts_for_the_person_who_sent_it(alice: User, nadia: User, signed_in: SignIn) -> None:
    path, body = reverse("token-new"), {"name": "CI", "days": "7", "scopes": ["mission.view"]}
    body["key"] = key_in(html(signed_in(alice).get(path)), path)
    assert signed_in(alice).post(path, body).status_code == 200
    assert signed_in(nadia).post(path, body).status_code == 200
