"""Signing in, one's own second factor, sessions and tokens, members and invitations, as browsers without script see
them; and what attackers of sign-in try."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import (
    TOTP,
    format_hotp_value,
    generate_totp_secret,
    hotp_value,
    yield_hotp_counters_from_time,
)
from django.conf import settings
from django.core import mail
from django.core.cache import caches
from django.test import Client
from django.urls import reverse

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.config import Configuration
from controlplane.tenancy import members, services
from controlplane.tenancy.credentials import issue_personal_token
from controlplane.tenancy.directory import held_by
from controlplane.tenancy.invitations import invite
from controlplane.tenancy.members import fingerprint
from controlplane.tenancy.models import Invitation, Membership, Organisation, Token, User
from controlplane.tenancy.types import Permission, Principal, Role
from tests.conftest import PASSWORD

SignIn = Callable[..., Client]
pytestmark = pytest.mark.usefixtures("_fresh_caches")


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


# --- attacks on sign-in ---


def test_session_fixation_the_key_changes_at_sign_in_and_the_old_one_is_dead(alice: User) -> None:
    browser = Client()
    session = browser.session
    session["planted"] = "by an attacker"
    session.save()
    planted = session.session_key
    browser.cookies["remit_session"] = planted
    assert log_in(browser, alice).status_code == 302
    assert browser.cookies["remit_session"].value != planted
    attacker = Client()
    attacker.cookies["remit_session"] = planted
    assert attacker.get(reverse("me")).status_code == 302


def test_session_fixation_by_a_one_time_link_and_an_invitation_either(alice: User, as_nadia: Principal) -> None:
    link = reverse("sign-in-link", args=[services.make_sign_in_link(user=alice)])
    secret = invite(principal=as_nadia, email="ines@acme.example", roles=[(None, Role.AUDITOR)])[1]
    for path, body in (
        (link, {}),
        (reverse("invitation", args=[secret]), {"name": "Ines", "password": PASSWORD}),
    ):
        browser = Client()
        session = browser.session
        session.save()
        planted = session.session_key
        browser.cookies["remit_session"] = planted
        assert browser.post(path, body).status_code == 302
        assert who(browser) is not None
        assert browser.cookies["remit_session"].value != planted


def test_signing_in_needs_the_csrf_token(alice: User) -> None:
    browser = Client(enforce_csrf_checks=True)
    assert log_in(browser, alice).status_code == 403
    assert who(browser) is None


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example",
        "javascript:alert(1)",
        "http:///evil.example",
        "\thttps://evil.example",
    ],
)
def test_open_redirect_next_leads_only_to_this_site(target: str, alice: User) -> None:
    assert log_in(Client(), alice, next=target)["Location"] == "/"
    again = log_in(Client(), alice, next="/missions")
    assert again["Location"] == "/missions"


def test_open_redirect_signing_out_and_switching_either(alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    for path in (reverse("switch-organisation"), reverse("account_logout")):
        assert "evil" not in browser.post(path, {"next": "https://evil.example/"})["Location"]


def test_rate_limit_after_five_wrong_passwords_the_right_one_does_not_help(alice: User, bob: User) -> None:
    for _ in range(5):
        log_in(Client(REMOTE_ADDR="198.51.100.1"), alice, "a wrong guess of it")
    late = log_in(Client(REMOTE_ADDR="198.51.100.2"), alice)
    assert (late.status_code, who(late.client)) == (200, None)
    assert "Too many failed login attempts" in html(late)
    assert log_in(Client(REMOTE_ADDR="198.51.100.3"), bob).status_code == 302


def test_rate_limit_of_an_address_counts_guesses_at_many_accounts(alice: User) -> None:
    for number in range(10):
        body = {"login": f"person{number}@northwind.example", "password": "guess guess guess"}
        Client(REMOTE_ADDR="198.51.100.9").post(reverse("account_login"), body)
    late = log_in(Client(REMOTE_ADDR="198.51.100.9"), alice)
    assert who(late.client) is None
    assert log_in(Client(REMOTE_ADDR="198.51.100.10"), alice).status_code == 302


def test_rate_limits_are_counted_by_all_processes_together(alice: User, django_assert_num_queries: Any) -> None:
    from django.db import connection

    log_in(Client(), alice, "a wrong guess of it")
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM tenancy_shared_cache WHERE cache_key LIKE '%login_failed%'")
        assert cursor.fetchone()[0] >= 1
    assert caches["shared"] is not caches["default"]


def test_enumeration_a_wrong_password_and_an_unknown_address_look_the_same(alice: User) -> None:
    known = log_in(Client(), alice, "a wrong guess of it")
    unknown = Client().post(
        reverse("account_login"), {"login": "nobody@northwind.example", "password": "a wrong guess of it"}
    )
    plain = [
        re.sub(r'value="[^"]*"|content=\'[^\']*\'', "", html(answer)).replace(alice.email, "x")
        for answer in (known, unknown)
    ]
    assert known.status_code == unknown.status_code == 200
    assert plain[0] == plain[1].replace("nobody@northwind.example", "x")


def test_enumeration_resetting_a_password_says_the_same_to_everybody(alice: User) -> None:
    answers = [
        Client().post(reverse("account_reset_password"), {"email": email})
        for email in (alice.email, "nobody@northwind.example")
    ]
    assert {(answer.status_code, answer["Location"]) for answer in answers} == {
        (302, reverse("account_reset_password_done"))
    }


def test_resetting_a_password_says_where_the_link_is(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [reverse(name) for name in ("account_reset_password", "account_reset_password_done")]
    monkeypatch.setattr(settings.CONFIG, "email_url", "console://")
    for path in pages:
        assert "logs/web.log" in html(Client().get(path))
    monkeypatch.setattr(settings.CONFIG, "email_url", "smtp://mail.example:587")
    asking, asked = (html(Client().get(path)) for path in pages)
    assert "We send a link to your address." in asking
    assert "Look into your mail" in asked
    assert "logs/web.log" not in asking + asked


def test_enumeration_every_dead_invitation_link_shows_the_same_page(as_nadia: Principal) -> None:
    made, secret = invite(principal=as_nadia, email="ines@acme.example", roles=[(None, Role.AUDITOR)])
    Invitation.objects.filter(pk=made.pk).update(expires_at=now())
    pages = [Client().get(reverse("invitation", args=[text])) for text in (secret, "guess", "x" * 500)]
    assert {page.status_code for page in pages} == {410}
    assert len({html(page) for page in pages}) == 1


def test_mass_assignment_of_ones_own_profile_changes_nothing_else(alice: User, signed_in: SignIn) -> None:
    body = {"name": "Alice B", "time_zone": "UTC", "is_superuser": "1", "email": "x@x.example", "password": "x"}
    assert signed_in(alice).post(reverse("me"), {**body, "is_active": "", "id": "x"}).status_code == 302
    alice.refresh_from_db()
    assert (alice.name, alice.is_superuser, alice.is_active) == ("Alice B", False, True)
    assert alice.email == "alice@northwind.example"
    assert alice.check_password(PASSWORD)


def test_mass_assignment_an_invitation_makes_only_what_it_names(as_nadia: Principal, elsewhere: Organisation) -> None:
    secret = invite(principal=as_nadia, email="ines@acme.example", roles=[(None, Role.AUDITOR)])[1]
    extra = {"email": "root@acme.example", "is_superuser": "1", "role": "admin", "held": "all:admin"}
    extra["organisation"] = str(elsewhere.pk)
    Client().post(reverse("invitation", args=[secret]), {"name": "Ines", "password": PASSWORD, **extra})
    ines = User.objects.get(name="Ines")
    assert (ines.email, ines.is_superuser) == ("ines@acme.example", False)
    assert list(ines.memberships.values_list("role", "organisation__slug")) == [("auditor", "northwind")]


def test_mass_assignment_of_a_token_and_of_the_organisation(
    alice: User, bob: User, nadia: User, signed_in: SignIn
) -> None:
    body = {"name": "Script", "days": "30", "scopes": ["mission.view"], "user": str(bob.pk), "kind": "svc"}
    assert signed_in(alice).post(reverse("token-new"), {**body, "expires_at": "2099-01-01"}).status_code == 200
    token = Token.objects.get()
    assert (token.kind, token.user_id) == ("pat", alice.pk)
    assert token.expires_at < now() + timedelta(days=31)
    given = {"name": "Northwind", "time_zone": "UTC", "sign_off_above": "5", "token_days_max": "90"}
    seen = "Northwind|UTC|5.000000000000|366|False"
    changed = signed_in(nadia).post(
        reverse("organisation"), {**given, "seen": seen, "slug": "taken", "currency": "EUR", "id": "x"}
    )
    assert changed.status_code == 302
    assert Organisation.objects.values_list("slug", "currency", "token_days_max").get(name="Northwind") == (
        "northwind",
        "USD",
        90,
    )


def test_scopes_one_does_not_have_are_refused(alice: User, signed_in: SignIn) -> None:
    body = {"name": "Script", "days": "30", "scopes": ["mission.view", "organisation.write"]}
    assert signed_in(alice).post(reverse("token-new"), body).status_code == 422
    assert signed_in(alice).post(reverse("token-new") + "?kind=svc", body).status_code in (403, 422)
    assert not Token.objects.exists()


# --- second factor ---


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


# --- sessions ---


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


# --- members ---


def test_members_as_csv_tell_second_factors_only_to_who_manages_them(
    nadia: User, alice: User, bob: User, signed_in: SignIn
) -> None:
    def lines(person: User) -> list[dict[str, str]]:
        content = b"".join(signed_in(person).get(reverse("members") + "?format=csv")).decode()
        return list(csv.DictReader(io.StringIO(content)))

    managed = {line["email"]: line for line in lines(nadia)}
    assert {alice.email, bob.email, nadia.email} <= set(managed)
    assert managed[nadia.email]["roles"] == "Admin (everywhere)"
    assert managed[alice.email]["second_factor"] == "False"
    assert all("second_factor" not in line for line in lines(alice))


def test_an_administrator_invites_and_the_invited_joins(nadia: User, signed_in: SignIn, team: Any) -> None:
    browser = signed_in(nadia)
    shown = browser.post(
        reverse("member-invite"), {"email": "ines@acme.example", "held": [f"{team.pk}:builder", "all:auditor"]}
    )
    assert shown.status_code == 200
    link = unescape(re.search(r"<code>(http://localhost:8000/invitations/[^<]+)</code>", html(shown))[1])  # type: ignore[index]
    assert "No mail server is connected" in html(shown)
    assert link not in html(browser.get(reverse("members")))
    path = link.removeprefix("http://localhost:8000")
    guest = Client()
    page = html(guest.get(path))
    assert "Nadia invites ines@acme.example as" in page
    assert guest.post(path, {"name": "Ines", "password": PASSWORD}).status_code == 302
    assert guest.get(reverse("missions")).status_code == 200
    assert guest.get(path).status_code == 410
    listed = html(browser.get(reverse("members")))
    assert "Ines" in listed
    assert "ines@acme.example" in listed
    assert mail.outbox == []


def test_with_a_mail_server_the_link_is_mailed_too(nadia: User, signed_in: SignIn, settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"email_url": "smtp://mail.example"})
    shown = signed_in(nadia).post(reverse("member-invite"), {"email": "ines@acme.example", "held": ["all:auditor"]})
    assert "Remit mailed it" in html(shown)
    (message,) = mail.outbox
    assert message.to == ["ines@acme.example"]
    assert message.subject == "Join Northwind on Remit"
    link = re.search(r"http://localhost:8000(/invitations/\S+)", str(message.body))[1]  # type: ignore[index]
    assert Client().get(link).status_code == 200
    assert Invitation.objects.get().mailed_at is not None


def test_a_mail_server_that_is_away_leaves_the_link_to_pass_on(nadia: User, signed_in: SignIn, settings: Any) -> None:
    settings.CONFIG = settings.CONFIG.model_copy(update={"email_url": "smtp://127.0.0.1:9"})
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", 9
    shown = signed_in(nadia).post(reverse("member-invite"), {"email": "ines@acme.example", "held": ["all:auditor"]})
    assert "did not take the message" in html(shown)
    assert "/invitations/" in html(shown)


def test_somebody_signed_in_as_another_is_told_so(alice: User, as_nadia: Principal, signed_in: SignIn) -> None:
    secret = invite(principal=as_nadia, email="ines@acme.example", roles=[(None, Role.ADMIN)])[1]
    browser = signed_in(alice)
    path = reverse("invitation", args=[secret])
    assert "Sign out, then open the link again" in html(browser.get(path))
    assert browser.post(path).status_code == 403
    assert Membership.objects.filter(user=alice).count() == 1


def test_roles_are_changed_on_the_members_page(nadia: User, alice: User, signed_in: SignIn, team: Any) -> None:
    browser = signed_in(nadia)
    page = html(browser.get(reverse("member", args=[alice.pk])))
    assert re.search(rf'value="{team.pk}:builder"[^>]* checked', page)
    seen = re.search(r'name="seen" value="([^"]+)"', page)[1]  # type: ignore[index]
    body = {"held": [f"{team.pk}:approver"], "seen": seen}
    assert browser.post(reverse("member-roles", args=[alice.pk]), body).status_code == 302
    assert list(alice.memberships.values_list("role", flat=True)) == ["approver"]
    stale = browser.post(reverse("member-roles", args=[alice.pk]), body)
    assert stale.status_code == 409
    assert "were changed meanwhile" in html(stale)


@pytest.mark.parametrize(
    "held", ["all:owner", "nowhere:admin", "all", ":", "0190a000-0000-7000-8000-000000000000:admin"]
)
def test_roles_that_do_not_exist_are_refused(held: str, nadia: User, alice: User, signed_in: SignIn) -> None:
    body = {"held": [held], "seen": fingerprint(held_by_alice(nadia, alice))}
    assert signed_in(nadia).post(reverse("member-roles", args=[alice.pk]), body).status_code in (404, 422)
    assert list(alice.memberships.values_list("role", flat=True)) == ["builder"]


def held_by_alice(nadia: User, alice: User) -> Any:
    principal = services.principal_of_user(user=nadia)
    assert principal is not None
    return held_by(principal, alice.pk)


def test_nobody_raises_their_own_rights_on_the_page(nadia: User, signed_in: SignIn) -> None:
    browser = signed_in(nadia)
    seen = re.search(r'name="seen" value="([^"]+)"', html(browser.get(reverse("member", args=[nadia.pk]))))[1]  # type: ignore[index]
    response = browser.post(
        reverse("member-roles", args=[nadia.pk]), {"held": ["all:admin", "all:approver"], "seen": seen}
    )
    assert response.status_code == 403
    assert nadia.memberships.count() == 1


def test_deactivating_says_what_ends_and_signs_out(nadia: User, alice: User, signed_in: SignIn) -> None:
    theirs = Client()
    log_in(theirs, alice)
    browser = signed_in(nadia)
    page = html(browser.get(reverse("member", args=[alice.pk])))
    assert "Ends 1 session and 0 tokens at once" in page
    browser.post(reverse("member-operate", args=[alice.pk, "deactivate"]))
    assert who(theirs) is None
    assert "Deactivated" in html(browser.get(reverse("members")))
    again = Client()
    assert log_in(again, alice)["Location"] == reverse("account_inactive")
    assert who(again) is None
    browser.post(reverse("member-operate", args=[alice.pk, "reactivate"]))
    assert log_in(Client(), alice)["Location"] == "/"


def test_others_see_members_without_what_only_administrators_need(alice: User, dana: User, signed_in: SignIn) -> None:
    page = html(signed_in(alice).get(reverse("members")))
    assert "Dana" in page
    assert "Last seen" not in page
    assert "Second factor" not in page
    assert reverse("member", args=[dana.pk]) not in page


def test_members_cost_the_same_number_of_queries_however_many(
    nadia: User, northwind: Organisation, make_person: Callable[..., User], signed_in: SignIn, queries: Any
) -> None:
    browser = signed_in(nadia)
    few = queries(browser, reverse("members"))
    for number in range(20):
        make_person(f"P{number}", northwind, Role.AUDITOR)
    assert queries(browser, reverse("members")) == few


def test_the_roles_page_ticks_what_the_map_says(alice: User, signed_in: SignIn) -> None:
    from controlplane.tenancy.types import ROLE_PERMISSIONS

    page = html(signed_in(alice).get(reverse("roles")))
    body = page.split("<tbody>")[1].split("</tbody>")[0]
    rows = {re.search(r"<code>([^<]+)</code>", row)[1]: row for row in body.split("<tr>")[1:]}  # type: ignore[index]
    for permission in frozenset().union(*ROLE_PERMISSIONS.values()):
        ticks = ['aria-label="yes"' in cell for cell in rows[permission.value].split("<td")[1:]]
        assert ticks == [permission in ROLE_PERMISSIONS[role] for role in Role], permission


# --- tokens ---


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


def test_configuration_of_sign_in_is_checked_at_start() -> None:
    from pydantic import ValidationError

    for bad in (
        {"oidc_issuer": "http://id.acme.example", "oidc_client_id": "x"},
        {"oidc_issuer": "https://id.acme.example"},
        {"oidc_domains": "acme.example"},
        {"email_url": "mail.example:25"},
    ):
        with pytest.raises(ValidationError):
            Configuration(_env_file=None, **bad)  # type: ignore[call-arg]
