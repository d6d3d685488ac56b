"""One's own profile, and switching to another organisation that one belongs to."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.urls import reverse

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.tenancy.models import Membership, Organisation, Team, User

from .browsing import SignIn, page


def test_a_profile_is_saved_and_audited(world: Any, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    response = browser.post(reverse("me"), {"name": " Alice  Smith ", "time_zone": "Europe/Helsinki"})
    assert response.status_code == 302
    assert response.cookies["remit_shortcuts"].value == "off"
    alice.refresh_from_db()
    assert (alice.name, alice.time_zone) == ("Alice Smith", "Europe/Helsinki")
    assert alice.preferences == {"single_key_shortcuts": False}
    assert Entry.objects.get(event="person.changed").payload == {
        "changed": ["name", "single_key_shortcuts", "time_zone"]
    }
    assert 'data-shortcuts="off"' in page(browser, reverse("me"))


@pytest.mark.parametrize("body", [{"name": "", "time_zone": "UTC"}, {"name": "A", "time_zone": "../etc"}, {}])
def test_a_bad_profile_is_not_saved(world: Any, alice: User, signed_in: SignIn, body: dict[str, str]) -> None:
    assert signed_in(alice).post(reverse("me"), body).status_code == 422
    alice.refresh_from_db()
    assert alice.name == "Alice"


def test_switching_goes_only_where_one_belongs(world: Any, alice: User, elsewhere: Any, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    browser.post(reverse("switch-organisation"), {"organisation": str(elsewhere.pk)})
    assert "Chase overdue" in page(browser, reverse("missions"))
    Membership.objects.create(organisation=elsewhere, user=alice, role="builder")
    browser.post(reverse("switch-organisation"), {"organisation": str(elsewhere.pk), "next": "//evil.example"})
    html = page(browser, reverse("missions"))
    assert "Elsewhere" in html
    assert "Chase overdue" not in html


@pytest.mark.parametrize("way", ["switched in another tab", "shut out", "joined one that comes first by name"])
def test_a_form_that_was_opened_in_one_organisation_adds_nothing_to_another(
    world: Any, nadia: User, elsewhere: Organisation, signed_in: SignIn, way: str
) -> None:
    browser = signed_in(nadia, enforce_csrf=True)
    token = re.search('name="csrfmiddlewaretoken" value="([^"]+)"', page(browser, reverse("teams")))
    assert token is not None
    form = {"name": "Night shift", "csrfmiddlewaretoken": token[1]}
    Membership.objects.create(organisation=elsewhere, user=nadia, role="admin")
    if way == "switched in another tab":
        there = {"organisation": str(elsewhere.pk), "csrfmiddlewaretoken": token[1]}
        assert browser.post(reverse("switch-organisation"), there).status_code == 302
    elif way == "shut out":
        Membership.objects.filter(user=nadia).exclude(organisation=elsewhere).update(suspended_at=now())
    answer = browser.post(reverse("teams"), form)
    assert not Team.objects.filter(organisation=elsewhere).exists()
    assert Team.objects.filter(name="Night shift").exists() is (way == "joined one that comes first by name")
    if not Team.objects.filter(name="Night shift").exists():
        assert answer.status_code == 403
        assert "went to another organisation" in answer.content.decode()
        assert "Elsewhere" in page(browser, reverse("teams"))
