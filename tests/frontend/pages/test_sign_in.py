"""What attackers of sign-in try: fixed sessions, forged forms, guesses, redirects, enumeration, mass assignment."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import caches
from django.test import Client
from django.urls import reverse

from controlplane.common.clock import now
from controlplane.config import Configuration
from controlplane.tenancy import services
from controlplane.tenancy.invitations import invite
from controlplane.tenancy.models import Invitation, Organisation, Token, User
from controlplane.tenancy.types import Principal, Role
from tests.conftest import PASSWORD

from .entering import html, log_in, who

SignIn = Callable[..., Client]
pytestmark = pytest.mark.usefixtures("_fresh_caches")


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


def test_settings_that_somebody_changed_meanwhile_are_shown_and_can_be_saved_again(
    nadia: User, northwind: Organisation, signed_in: SignIn
) -> None:
    browser, path = signed_in(nadia), reverse("organisation")
    seen = browser.get(path).context["seen"]
    typed = {"name": "Northwind", "time_zone": "UTC", "sign_off_above": "5", "token_days_max": "90", "seen": seen}
    Organisation.objects.update(name="North|wind <b>", token_days_max=1, sign_off_above=7)
    for _ in range(2):  # a form that was not looked at stays refused
        refused = browser.post(path, typed)
        assert refused.status_code == 409
        html = refused.content.decode()
        for value in ("North|wind &lt;b&gt;", "1", "7"):
            assert f"<dd>{value}</dd>" in html
        assert "<dt>Time zone</dt>" not in html
        assert 'value="90"' in html
    assert browser.post(path, {**typed, "seen": refused.context["seen"]}).status_code == 302
    northwind.refresh_from_db()
    assert (northwind.name, northwind.token_days_max, northwind.sign_off_above) == ("Northwind", 90, 5)


def test_places_are_offered_as_time_zones_and_what_was_chosen_stays(
    nadia: User, northwind: Organisation, signed_in: SignIn
) -> None:
    browser = signed_in(nadia)
    for name in ("me", "organisation"):
        html = browser.get(reverse(name)).content.decode()
        offered = re.findall(r"<option[^>]*>([^<]+)</option>", html[html.index('name="time_zone"') :])
        assert {"Europe/Berlin", "America/Argentina/Salta", "UTC"} <= set(offered)
        assert not {"Factory", "localtime", "CET", "Etc/GMT+5"} & set(offered)
    User.objects.update(time_zone="CET")
    Organisation.objects.update(time_zone="CET")
    for name in ("me", "organisation"):
        assert re.search(r"<option[^>]* selected>CET</option>", browser.get(reverse(name)).content.decode())


def test_scopes_one_does_not_have_are_refused(alice: User, signed_in: SignIn) -> None:
    body = {"name": "Script", "days": "30", "scopes": ["mission.view", "organisation.write"]}
    assert signed_in(alice).post(reverse("token-new"), body).status_code == 422
    assert signed_in(alice).post(reverse("token-new") + "?kind=svc", body).status_code in (403, 422)
    assert not Token.objects.exists()


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
