"""Sign-in with a real OpenID provider, a process of its own: whom it lets in, and all that it does not."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from allauth.socialaccount.models import SocialAccount, SocialToken
from django.test import Client
from django.urls import reverse

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.settings import oidc_providers
from controlplane.tenancy import credentials, invitations, members, services
from controlplane.tenancy.models import Membership, User
from controlplane.tenancy.types import Role
from tests.conftest import PASSWORD

INES = {"sub": "ines-1", "claims": {"email": "Ines@Acme.example", "email_verified": True, "name": "Ines Moreau"}}


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    script = Path(__file__).with_name("openid_provider.py")
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.terminate()
    process.wait(10)
    process.stdout.close()


@pytest.fixture(autouse=True)
def _configured(settings: Any, issuer: str, db: None) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = oidc_providers(issuer, "remit", "a-secret-of-the-client", "Acme ID")
    settings.OIDC_DOMAINS = ""
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }


@pytest.fixture
def browser() -> Client:
    return Client()


@pytest.fixture
def come_back(browser: Client, issuer: str) -> Callable[..., Any]:
    """Through the button to the provider as `person`, and back with what it says; the answer of the callback."""

    def go(person: dict[str, Any], *, next_url: str = "", change: Callable[[str], str] = lambda url: url) -> Any:
        requests.post(f"{issuer}/person", json=person, timeout=5)
        left = browser.post(reverse("oidc-login"), {"next": next_url} if next_url else {})
        assert left.status_code == 200, left.content
        there = unescape(re.search(r'http-equiv="refresh" content="0;url=([^"]+)"', left.content.decode())[1])  # type: ignore[index]
        back = requests.get(there, allow_redirects=False, timeout=5)
        assert back.status_code == 302, back.text
        parts = urlsplit(change(back.headers["Location"]))
        return browser.get(f"{parts.path}?{parts.query}")

    return go


def who(browser: Client) -> str | None:
    return browser.session.get("_auth_user_id")


def nobody_was_let_in(browser: Client, before: int) -> None:
    assert who(browser) is None
    assert User.objects.count() == before
    assert not SocialAccount.objects.exists()


def test_the_button_is_there_only_where_a_provider_is_configured(browser, settings) -> None:
    assert "Sign in with Acme ID" in browser.get(reverse("account_login")).content.decode()
    settings.SOCIALACCOUNT_PROVIDERS = oidc_providers("", "", "", "Acme ID")
    assert "Acme ID" not in browser.get(reverse("account_login")).content.decode()
    assert browser.post(reverse("oidc-login")).status_code == 404
    assert browser.get(reverse("oidc-callback")).status_code == 404


def test_an_invited_person_gets_an_account_and_the_roles_of_the_invitation(
    browser, come_back, as_nadia, northwind
) -> None:
    invitations.invite(principal=as_nadia, email="ines@acme.example", roles=[(None, Role.APPROVER)])
    response = come_back(INES)
    assert (response.status_code, response["Location"]) == (302, "/")
    ines = User.objects.get(email="ines@acme.example")
    assert who(browser) == str(ines.pk)
    assert (ines.name, ines.has_usable_password(), ines.is_superuser) == ("Ines Moreau", False, False)
    assert list(ines.memberships.values_list("role", "organisation")) == [("approver", northwind.pk)]
    assert not SocialToken.objects.exists()
    events = list(Entry.objects.filter(actor_name="Ines Moreau").order_by("pk").values_list("event", flat=True))
    assert events == ["invitation.accepted", "person.linked", "person.signed_in"]


def test_the_request_carries_pkce_a_nonce_and_a_state_and_no_two_are_alike(browser, issuer) -> None:
    seen = []
    for _ in range(2):
        page = browser.post(reverse("oidc-login"), {"scope": "offline_access", "auth_params": "nonce=mine&prompt=none"})
        there = unescape(re.search(r'content="0;url=([^"]+)"', page.content.decode())[1])  # type: ignore[index]
        seen.append({name: values[0] for name, values in parse_qs(urlsplit(there).query).items()})
    for query in seen:
        assert query["code_challenge_method"] == "S256"
        assert set(query["scope"].split()) == {"openid", "profile", "email"}
        assert "prompt" not in query
        assert query["nonce"] != "mine"
        assert query["redirect_uri"] == "http://localhost:8000/accounts/oidc/callback/"
    for name in ("state", "nonce", "code_challenge"):
        assert seen[0][name] != seen[1][name]


@pytest.mark.parametrize(
    "fault",
    [
        {"id_token": {"nonce": "somebody else's"}},
        {"id_token": {"nonce": None}},
        {"id_token": {"aud": "another-client"}},
        {"id_token": {"aud": ["remit", "another-client"]}},
        {"id_token": {"aud": ["remit", "another-client"], "azp": "another-client"}},
        {"id_token": {"exp": 1}},
        {"id_token": {"exp": None}},
        {"id_token": {"iat": 99999999999}},
        {"id_token": {"iss": "https://elsewhere.example"}},
        {"id_token": {"sub": None}},
        {"signs_with": "none"},
        {"signs_with": "other"},
        {"signs_with": "secret"},
        {"signs_with": "unpublished"},
        {"no_id_token": True},
        {"email_only_in_userinfo": True, "userinfo": {"sub": "somebody-else"}},
    ],
    ids=str,
)
def test_an_answer_that_is_not_the_issuers_to_us_now_signs_nobody_in(fault, browser, come_back, as_nadia) -> None:
    invitations.invite(principal=as_nadia, email="ines@acme.example", roles=[(None, Role.APPROVER)])
    before = User.objects.count()
    response = come_back({**INES, **fault})
    assert response.status_code == 401
    assert "could not be trusted" in response.content.decode()
    nobody_was_let_in(browser, before)


def test_a_discovery_document_of_another_issuer_is_refused_before_anybody_leaves(browser, issuer) -> None:
    requests.post(f"{issuer}/person", json={"discovery_issuer": "https://elsewhere.example"}, timeout=5)
    response = browser.post(reverse("oidc-login"))
    assert response.status_code == 502
    requests.post(f"{issuer}/person", json={}, timeout=5)


def test_a_provider_that_is_away_is_said_so(browser, settings) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = oidc_providers("http://127.0.0.1:9", "remit", "x", "Acme ID")
    response = browser.post(reverse("oidc-login"))
    assert response.status_code == 502
    assert "did not work" in response.content.decode()


def test_an_answer_with_another_state_or_without_one_signs_nobody_in(browser, come_back, as_nadia) -> None:
    invitations.invite(principal=as_nadia, email="ines@acme.example", roles=[(None, Role.APPROVER)])
    before = User.objects.count()
    for change in (
        lambda url: re.sub(r"state=[^&]+", "state=guessedguessedgue", url),
        lambda url: re.sub(r"&?state=[^&]+", "", url),
    ):
        assert come_back(INES, change=change).status_code == 401
        nobody_was_let_in(browser, before)


def test_an_answer_made_for_another_browser_signs_nobody_in_here(come_back, as_nadia) -> None:
    invitations.invite(principal=as_nadia, email="ines@acme.example", roles=[(None, Role.APPROVER)])
    caught: list[str] = []
    come_back({**INES, "claims": {"email": "x"}}, change=lambda url: caught.append(url) or url)
    victim = Client()
    parts = urlsplit(caught[0])
    assert victim.get(f"{parts.path}?{parts.query}").status_code == 401
    assert who(victim) is None


def test_the_same_answer_twice_works_once(browser, come_back, as_nadia) -> None:
    invitations.invite(principal=as_nadia, email="ines@acme.example", roles=[(None, Role.APPROVER)])
    caught: list[str] = []
    come_back(INES, change=lambda url: caught.append(url) or url)
    browser.logout()
    parts = urlsplit(caught[0])
    assert browser.get(f"{parts.path}?{parts.query}").status_code == 401
    assert who(browser) is None


def test_cancelling_at_the_provider_is_no_error(browser, come_back) -> None:
    response = come_back({**INES, "cancels": True})
    assert response.status_code == 302
    assert "You did not sign in" in browser.get(response["Location"]).content.decode()


@pytest.mark.parametrize("verified", [False, None, "true", 1])
def test_an_unverified_address_is_not_linked_to_an_existing_account(verified, browser, come_back, alice) -> None:
    claims = {"email": alice.email, "email_verified": verified}
    response = come_back({"sub": "attacker", "claims": claims})
    assert response.status_code == 403
    assert "not verified" in response.content.decode()
    nobody_was_let_in(browser, User.objects.count())
    alice.refresh_from_db()
    assert alice.check_password(PASSWORD)


def test_an_unverified_address_looks_the_same_whether_it_has_an_account_or_not(come_back, alice) -> None:
    known = come_back({"sub": "a", "claims": {"email": alice.email, "email_verified": False}})
    unknown = come_back({"sub": "a", "claims": {"email": "nobody@acme.example", "email_verified": False}})
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)


def test_a_verified_address_links_the_account_once_and_shuts_out_who_only_had_its_password(
    browser, come_back, alice
) -> None:
    response = come_back({"sub": "alice-1", "claims": {"email": alice.email.upper(), "email_verified": True}})
    assert response.status_code == 302
    assert who(browser) == str(alice.pk)
    alice.refresh_from_db()
    assert not alice.has_usable_password()
    assert Entry.objects.filter(event="person.linked", subject_id=alice.pk).count() == 1


def test_tokens_made_before_anybody_proved_the_address_end_with_the_password(
    browser, come_back, alice, bob, as_alice, as_bob
) -> None:
    """Whoever opened the account with the address alone would go on acting as its owner for a year."""
    soon = now() + timedelta(days=30)
    _, theirs = credentials.issue_personal_token(principal=as_alice, user=alice, name="theirs", expires_at=soon)
    _, others = credentials.issue_personal_token(principal=as_bob, user=bob, name="others", expires_at=soon)
    come_back({"sub": "alice-1", "claims": {"email": alice.email, "email_verified": True}})
    with pytest.raises(RemitError, match="revoked"):
        services.principal_of_token(theirs)
    assert services.principal_of_token(others).user_id == bob.pk
    assert Entry.objects.get(event="token.revoked").subject_name == "theirs"
    assert "Your personal token was revoked" in browser.get(reverse("me")).content.decode()
    _, mine = credentials.issue_personal_token(principal=as_alice, user=alice, name="mine", expires_at=soon)
    browser.logout()
    come_back({"sub": "alice-1", "claims": {"email": alice.email, "email_verified": True}})
    assert services.principal_of_token(mine).user_id == alice.pk


def test_a_password_of_an_address_that_was_proved_before_stays(come_back, alice) -> None:
    EmailAddress.objects.create(user=alice, email=alice.email, primary=True, verified=True)
    assert come_back({"sub": "alice-1", "claims": {"email": alice.email, "email_verified": True}}).status_code == 302
    alice.refresh_from_db()
    assert alice.check_password(PASSWORD)


def test_an_address_that_moved_to_another_subject_does_not_take_the_account_along(browser, come_back, alice) -> None:
    come_back({"sub": "alice-1", "claims": {"email": alice.email, "email_verified": True}})
    browser.logout()
    response = come_back({"sub": "new-owner", "claims": {"email": alice.email, "email_verified": True}})
    assert response.status_code == 403
    assert who(browser) is None
    assert SocialAccount.objects.count() == 1


def test_a_linked_person_stays_linked_when_their_address_changes_at_the_provider(browser, come_back, alice) -> None:
    come_back({"sub": "alice-1", "claims": {"email": alice.email, "email_verified": True}})
    browser.logout()
    come_back({"sub": "alice-1", "claims": {"email": "alice.new@acme.example", "email_verified": False}})
    assert who(browser) == str(alice.pk)


def test_the_address_may_come_from_userinfo(browser, come_back, alice) -> None:
    person = {"sub": "a", "claims": {"email": alice.email, "email_verified": True}, "email_only_in_userinfo": True}
    come_back(person)
    assert who(browser) == str(alice.pk)


def test_nobody_joins_without_an_invitation(browser, come_back, alice) -> None:
    before = User.objects.count()
    response = come_back(INES)
    assert response.status_code == 403
    assert "Nobody has invited it" in response.content.decode()
    nobody_was_let_in(browser, before)


def test_an_invitation_of_an_administrator_who_left_lets_nobody_in(browser, come_back, as_nadia, dana, acting) -> None:
    members.add_member(principal=as_nadia, user=dana, role=Role.ADMIN)
    invitations.invite(principal=acting(dana), email="ines@acme.example", roles=[(None, Role.ADMIN)])
    members.deactivate(principal=as_nadia, user_id=dana.pk)
    before = User.objects.count()
    assert come_back(INES).status_code == 403
    nobody_was_let_in(browser, before)


@pytest.mark.parametrize("rule", ["acme.example=northwind", "other.example=elsewhere, ACME.example=northwind"])
def test_a_mapped_domain_joins_with_the_least_role(rule, settings, browser, come_back, northwind) -> None:
    settings.OIDC_DOMAINS = rule
    come_back(INES)
    ines = User.objects.get(email="ines@acme.example")
    assert list(ines.memberships.values_list("organisation", "team", "role")) == [(northwind.pk, None, "auditor")]
    assert Entry.objects.get(event="member.joined").payload["domain"] == "acme.example"


def test_a_mapped_domain_may_name_a_team(settings, come_back, team) -> None:
    settings.OIDC_DOMAINS = "acme.example=northwind/receivables"
    come_back(INES)
    assert list(Membership.objects.filter(user__name="Ines Moreau").values_list("team", "role")) == [
        (team.pk, "auditor")
    ]


@pytest.mark.parametrize(
    "rule", ["acme.example=nowhere", "acme.example=northwind/nothing", "example=northwind", "me.example=northwind"]
)
def test_a_rule_for_another_domain_or_without_its_place_lets_nobody_in(rule, settings, come_back, northwind) -> None:
    settings.OIDC_DOMAINS = rule
    assert come_back(INES).status_code == 403
    assert not User.objects.filter(email="ines@acme.example").exists()


def test_who_was_deactivated_does_not_come_back_by_the_domain(
    settings, browser, come_back, as_nadia, make_person, northwind
) -> None:
    settings.OIDC_DOMAINS = "northwind.example=northwind"
    eve = make_person("Eve", northwind, Role.AUDITOR)
    members.deactivate(principal=as_nadia, user_id=eve.pk)
    response = come_back({"sub": "eve", "claims": {"email": eve.email, "email_verified": True}})
    assert who(browser) is None
    assert response["Location"] == reverse("account_inactive")
    assert Membership.objects.filter(user=eve, suspended_at__isnull=True).count() == 0


def test_the_second_factor_is_asked_for_all_the_same(browser, come_back, alice) -> None:
    TOTP.activate(alice, generate_totp_secret())
    response = come_back({"sub": "alice-1", "claims": {"email": alice.email, "email_verified": True}})
    assert response["Location"] == reverse("mfa_authenticate")
    assert who(browser) is None
    assert Authenticator.objects.filter(user=alice).count() == 1


@pytest.mark.parametrize(
    ("wanted", "got"), [("/missions", "/missions"), ("https://evil.example/", "/"), ("//evil.example", "/")]
)
def test_afterwards_one_goes_only_where_this_site_is(wanted, got, come_back, alice) -> None:
    person = {"sub": "alice-1", "claims": {"email": alice.email, "email_verified": True}}
    assert come_back(person, next_url=wanted)["Location"] == got


def test_sign_in_starts_by_post_alone(browser) -> None:
    assert browser.get(reverse("oidc-login")).status_code == 405
    assert Client(enforce_csrf_checks=True).post(reverse("oidc-login")).status_code == 403


def test_an_odd_name_and_address_are_kept_short_and_plain(come_back, settings, northwind) -> None:
    settings.OIDC_DOMAINS = "acme.example=northwind"
    claims = {"email": "x@acme.example", "email_verified": True, "name": "  <b>Odd</b>\n" + "n" * 500}
    come_back({"sub": "odd", "claims": claims})
    name = User.objects.get(email="x@acme.example").name
    assert name.startswith("<b>Odd</b> nnn")
    assert len(name) == 120


@pytest.mark.parametrize("odd", ["Nul\x00 Ines", "Half \ud800 pair"])
@pytest.mark.parametrize("claim", ["name", "picture"])
def test_a_claim_that_is_no_text_is_left_out_and_its_owner_comes_in(claim, odd, browser, come_back, as_nadia) -> None:
    """The database can keep neither; the person can do nothing about what their directory says of them."""
    invitations.invite(principal=as_nadia, email="ines@acme.example", roles=[(None, Role.APPROVER)])
    person = {**INES, "claims": {**INES["claims"], claim: odd}}
    assert come_back(person).status_code == 302
    ines = User.objects.get(email="ines@acme.example")
    assert who(browser) == str(ines.pk)
    browser.logout()
    assert come_back(person).status_code == 302  # known by now
    assert who(browser) == str(ines.pk)


@pytest.mark.parametrize(
    "address", ["alice\x00@northwind.example", "\ud800alice@northwind.example", ["a@b.example"], 5]
)
def test_an_address_that_is_no_text_is_nobodys(address, browser, come_back, alice) -> None:
    """Its odd character left out, it would be Alice's."""
    response = come_back({"sub": "attacker", "claims": {"email": address, "email_verified": True}})
    assert response.status_code == 401
    nobody_was_let_in(browser, User.objects.count())
    alice.refresh_from_db()
    assert alice.check_password(PASSWORD)
