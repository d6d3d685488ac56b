"""One's own second factor and sessions, as browsers without script see them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import (
    TOTP,
    generate_totp_secret,
)
from django.test import Client
from django.urls import reverse

from controlplane.tenancy import services
from controlplane.tenancy.models import Organisation, Token, User
from tests.conftest import PASSWORD

from .entering import code, events, html, log_in, who

SignIn = Callable[..., Client]
pytestmark = pytest.mark.usefixtures("_fresh_caches")


def set_up(browser: Client) -> tuple[str, list[str]]:
    """The secret and the recovery codes, through the pages."""
    page = browser.get(reverse("mfa_activate_totp"))
    secret = re.search(r"<code>([A-Z2-7]{32})</code>", html(page))[1]  # type: ignore[index]
    done = browser.post(reverse("mfa_activate_totp"), {"code": code(secret)})
    assert (done.status_code, done["Location"]) == (302, reverse("mfa_view_recovery_codes"))
    shown = html(browser.get(done["Location"]))
    return secret, re.findall(r"^(?:.*<code>)?(\d{8})$", shown, re.M)


def test_a_second_factor_is_set_up_and_asked_for(alice: User) -> None:
    browser = Client()
    log_in(browser, alice)
    secret, recovery = set_up(browser)
    assert len(set(recovery)) == 10
    again = html(browser.get(reverse("mfa_view_recovery_codes")))
    assert not any(item in again for item in recovery)  # shown once

    other = Client()
    assert log_in(other, alice)["Location"] == reverse("mfa_authenticate")
    assert who(other) is None
    assert other.get(reverse("me")).status_code == 302
    assert other.post(reverse("mfa_authenticate"), {"code": "000000"}).status_code == 200
    assert who(other) is None
    used = code(secret)
    assert other.post(reverse("mfa_authenticate"), {"code": used}).status_code == 302
    assert who(other) == str(alice.pk)

    replay = Client()
    log_in(replay, alice)
    replay.post(reverse("mfa_authenticate"), {"code": used})
    assert who(replay) is None  # a code works once

    for expected in (str(alice.pk), None):
        lost = Client()
        log_in(lost, alice)
        lost.post(reverse("mfa_authenticate"), {"code": recovery[0]})
        assert who(lost) == expected
    assert events("second_factor.on", "second_factor.failed") == ["second_factor.on"] + ["second_factor.failed"] * 3


def test_who_has_no_password_but_a_link_sees_the_recovery_codes_at_once(alice: User) -> None:
    alice.set_unusable_password()
    alice.save()
    browser = Client()
    browser.post(reverse("sign-in-link", args=[services.make_sign_in_link(user=alice)]))
    _, recovery = set_up(browser)
    assert len(set(recovery)) == 10


def test_codes_cannot_be_guessed_for_long(alice: User) -> None:
    secret = generate_totp_secret()
    TOTP.activate(alice, secret)
    browser = Client()
    log_in(browser, alice)
    for _ in range(6):
        browser.post(reverse("mfa_authenticate"), {"code": "000000"})
    browser.post(reverse("mfa_authenticate"), {"code": code(secret)})
    assert who(browser) is None


def test_a_one_time_link_does_not_go_around_the_second_factor(alice: User) -> None:
    TOTP.activate(alice, generate_totp_secret())
    browser = Client()
    response = browser.post(reverse("sign-in-link", args=[services.make_sign_in_link(user=alice)]))
    assert response["Location"] == reverse("mfa_authenticate")
    assert who(browser) is None


def test_new_recovery_codes_end_the_old_ones_and_turning_off_ends_all(alice: User) -> None:
    browser = Client()
    log_in(browser, alice)
    _, recovery = set_up(browser)
    assert browser.post(reverse("mfa_generate_recovery_codes")).status_code == 302
    fresh = re.findall(r"^(?:.*<code>)?(\d{8})$", html(browser.get(reverse("mfa_view_recovery_codes"))), re.M)
    assert len(fresh) == 10
    assert not set(fresh) & set(recovery)
    lost = Client()
    log_in(lost, alice)
    lost.post(reverse("mfa_authenticate"), {"code": recovery[0]})
    assert who(lost) is None
    assert browser.post(reverse("mfa_deactivate_totp")).status_code == 302
    assert log_in(Client(), alice)["Location"] == "/"
    assert events("second_factor.codes", "second_factor.off") == ["second_factor.codes", "second_factor.off"]


def test_changing_the_second_factor_asks_again_who_it_is(alice: User, signed_in: SignIn) -> None:
    stale = signed_in(alice)  # a session that says nothing of when it signed in
    response = stale.get(reverse("mfa_activate_totp"))
    assert response["Location"].startswith(reverse("account_reauthenticate"))
    body = {"password": PASSWORD, "next": reverse("mfa_activate_totp")}
    assert stale.post(reverse("account_reauthenticate"), body)["Location"] == reverse("mfa_activate_totp")
    assert stale.get(reverse("mfa_activate_totp")).status_code == 200


def test_where_it_is_required_nothing_else_is_possible_until_it_is_set_up(
    alice: User, northwind: Organisation, team: Any
) -> None:
    Organisation.objects.filter(pk=northwind.pk).update(second_factor_required=True)
    browser, other = Client(), Client()
    for each in (browser, other):
        assert log_in(each, alice).status_code == 302
    for path in (reverse("home"), reverse("missions"), reverse("tokens"), reverse("me")):
        assert browser.get(path)["Location"] == reverse("mfa_activate_totp"), path
    refused = browser.post(reverse("token-new"), {"name": "x", "days": "30", "scopes": ["mission.view"]})
    assert refused["Location"] == reverse("mfa_activate_totp")
    assert not Token.objects.exists()
    assert "asks everybody for one" in html(browser.get(reverse("mfa_activate_totp")))
    set_up(browser)
    assert browser.get(reverse("missions")).status_code == 200
    assert who(other) is None  # it had been signed in without
    assert browser.post(reverse("mfa_deactivate_totp")).status_code == 302
    assert browser.get(reverse("missions")).status_code == 200
    assert events("second_factor.off") == []


def test_sessions_are_listed_and_ended_one_by_one_and_all_others(alice: User) -> None:
    here = Client(HTTP_USER_AGENT="Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/140.0")
    phone = Client(HTTP_USER_AGENT="Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Safari/604.1")
    third = Client(HTTP_USER_AGENT="<script>alert(1)</script>", REMOTE_ADDR="198.51.100.7")
    for browser in (here, phone, third):
        log_in(browser, alice)
    page = html(here.get(reverse("me")))
    assert "Firefox on Linux" in page
    assert "Safari on iPhone" in page
    assert "198.51.100.7" in page
    assert "<script>alert" not in page
    ends = re.findall(rf'action="({reverse("session-end", args=[0])[:-5]}\d+/end)"', page)
    assert len(ends) == 2
    label = re.search(r'action="(/me/sessions/\d+/end)"[^§]*?Sign out Safari on iPhone', page)
    assert label is not None
    here.post(ends[0])
    assert [who(browser) is None for browser in (here, phone, third)].count(True) == 1
    here.post(reverse("sessions-end"))
    assert [who(browser) is None for browser in (here, phone, third)] == [False, True, True]
    assert events("session.ended") == ["session.ended", "session.ended"]
