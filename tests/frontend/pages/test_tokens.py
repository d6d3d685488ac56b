"""Tokens, and settings that somebody else changed meanwhile."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from controlplane.common.clock import now
from controlplane.tenancy import members, services
from controlplane.tenancy.credentials import issue_personal_token
from controlplane.tenancy.models import Organisation, Token, User
from controlplane.tenancy.types import Permission, Principal, Role

from .entering import html

SignIn = Callable[..., Client]
pytestmark = pytest.mark.usefixtures("_fresh_caches")


def test_a_token_is_shown_once_with_a_command_to_paste(alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    page = html(browser.get(reverse("token-new")))
    assert re.findall(r'value="([a-z.]+)"[^>]* checked', page) == ["mission.view"]  # least by default
    shown = browser.post(reverse("token-new"), {"name": "CI", "days": "7", "scopes": ["mission.view"]})
    text = re.search(r"rmt_pat_[A-Za-z0-9_-]{43}_[0-9a-f]{8}", html(shown))[0]  # type: ignore[index]
    assert f"Authorization: Bearer {text}" in unescape(html(shown))
    assert "no-store" in shown["Cache-Control"]
    assert services.principal_of_token(text).scopes == {Permission.MISSION_VIEW}
    listed = html(browser.get(reverse("tokens")))
    assert text not in listed
    assert "See missions, runs and their output" in listed
    assert "CI" in html(browser.get(reverse("me")))


@pytest.mark.parametrize(
    "bad", [{"name": ""}, {"days": "0"}, {"days": "9999"}, {"days": "x"}, {"scopes": []}, {"scopes": ["root"]}], ids=str
)
def test_a_token_without_name_expiry_or_scopes_is_not_made(bad: Any, alice: User, signed_in: SignIn) -> None:
    body = {"name": "CI", "days": "7", "scopes": ["mission.view"], **bad}
    assert signed_in(alice).post(reverse("token-new"), body).status_code == 422
    assert not Token.objects.exists()


def test_a_token_is_rotated_with_an_overlap_and_revoked(alice: User, as_alice: Principal, signed_in: SignIn) -> None:
    token, old = issue_personal_token(
        principal=as_alice,
        user=alice,
        name="CI",
        expires_at=now() + timedelta(days=7),
        scopes={Permission.MISSION_VIEW},
    )
    browser = signed_in(alice)
    path = reverse("token-rotate", args=[token.pk])
    assert browser.post(path, {"overlap": "9999"}).status_code == 422
    shown = browser.post(path, {"overlap": "24"})
    new = re.search(r"rmt_pat_[A-Za-z0-9_-]{43}_[0-9a-f]{8}", html(shown))[0]  # type: ignore[index]
    assert services.principal_of_token(old).user_id == services.principal_of_token(new).user_id == alice.pk
    assert "Replaced" in html(browser.get(reverse("tokens")))
    assert browser.post(path, {"overlap": "24"}).status_code == 409
    browser.post(reverse("token-revoke", args=[Token.objects.get(replaces=token).pk]))
    assert "Revoked" in html(browser.get(reverse("tokens")))


def test_settings_that_somebody_changed_meanwhile_keep_what_was_typed(nadia: User, signed_in: SignIn) -> None:
    body = {"name": "Mine", "time_zone": "UTC", "sign_off_above": "5", "token_days_max": "90", "seen": "old"}
    response = signed_in(nadia).post(reverse("organisation"), body)
    assert response.status_code == 409
    assert 'value="Mine"' in html(response)
    assert Organisation.objects.get(slug="northwind").name == "Northwind"


def test_an_administrator_who_leaves_a_team_page_open_is_asked_again(
    nadia: User, dana: User, as_nadia: Principal, acting: Any, signed_in: SignIn
) -> None:
    members.add_member(principal=as_nadia, user=dana, role=Role.ADMIN)
    browser = signed_in(dana)
    members.deactivate(principal=as_nadia, user_id=dana.pk)
    assert browser.get(reverse("members")).status_code == 302
