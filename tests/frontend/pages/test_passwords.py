"""A new password ends what the old one opened, in the list of sessions and on open pages too."""

from __future__ import annotations

import re
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.core import mail
from django.test import Client, override_settings
from django.urls import reverse
from structlog.testing import capture_logs

from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy import credentials, services
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from tests.conftest import PASSWORD

from .entering import events, html, log_in, who

pytestmark = pytest.mark.usefixtures("_fresh_caches")
NEW = "a-quite-different-one-7"


def reset(user: User, browser: Client) -> None:
    """Through the mailed link, as whoever reads the mail of the address."""
    mail.outbox.clear()
    browser.post(reverse("account_reset_password"), {"email": user.email})
    link = re.search(r"https?://\S+/accounts/password/reset/key/\S+", str(mail.outbox[0].body))
    assert link is not None
    form = browser.get(urlsplit(link[0]).path)
    done = browser.post(form["Location"], {"password1": NEW, "password2": NEW})
    assert done.status_code == 302


def others_listed(browser: Client) -> int:
    return len(re.findall(r'action="/me/sessions/\d+/end"', html(browser.get(reverse("me")))))


def test_the_link_leads_to_the_public_address_whatever_host_was_asked_and_the_mail_says_whose_it_is(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings.CONFIG, "public_url", "https://remit.acme.example")
    Client().post(reverse("account_reset_password"), {"email": alice.email}, headers={"host": "localhost:1234"})
    sent = mail.outbox[0]
    assert re.findall(r"\S+://\S+?/", str(sent.body)) == ["https://remit.acme.example/"]
    assert sent.subject == "A new password for Remit"
    assert "localhost" not in sent.subject + str(sent.body)


def test_an_address_without_an_account_is_mailed_no_way_to_sign_up_because_people_are_invited() -> None:
    Client().post(reverse("account_reset_password"), {"email": "nobody@northwind.example"})
    sent = mail.outbox[0]
    assert sent.subject == "A new password for Remit"
    assert "invite" in str(sent.body)
    assert "://" not in str(sent.body)


def test_a_mail_server_that_takes_nothing_makes_no_difference_between_addresses_and_is_no_broken_page(
    alice: User,
) -> None:
    smtp = "django.core.mail.backends.smtp.EmailBackend"
    with override_settings(EMAIL_BACKEND=smtp, EMAIL_HOST="127.0.0.1", EMAIL_PORT=1), capture_logs() as lines:
        answers = [
            Client(raise_request_exception=False).post(reverse("account_reset_password"), {"email": email})
            for email in (alice.email, "nobody@northwind.example")
        ]
    assert {(answer.status_code, answer.get("Location")) for answer in answers} == {
        (302, reverse("account_reset_password_done"))
    }
    assert [line["what"] for line in lines if line["event"] == "mail.not_sent"] == [
        "password_reset_key",
        "unknown_account",
    ]


def test_a_changed_password_leaves_this_browser_alone_in_the_list_of_sessions(alice: User) -> None:
    here, other = Client(), Client()
    for browser in (here, other):
        log_in(browser, alice)
        browser.get(reverse("me"))
    assert others_listed(here) == 1
    changed = here.post(
        reverse("account_change_password"), {"oldpassword": PASSWORD, "password1": NEW, "password2": NEW}
    )
    assert changed.status_code == 302
    assert (who(here), who(other)) == (str(alice.pk), None)
    assert others_listed(here) == 0
    assert events("person.password_changed") == ["person.password_changed"]


def test_a_password_that_was_reset_leaves_no_session_of_before_in_the_list(alice: User) -> None:
    before = Client()
    log_in(before, alice)
    reset(alice, Client())
    assert who(before) is None
    after = Client()
    log_in(after, alice, NEW)
    assert others_listed(after) == 0


def test_tokens_made_before_the_address_was_proved_end_with_the_first_reset_and_later_ones_stay(
    alice: User, as_alice: Principal
) -> None:
    soon = now() + timedelta(days=30)
    _, before = credentials.issue_personal_token(principal=as_alice, user=alice, name="before", expires_at=soon)
    reset(alice, Client())
    with pytest.raises(RemitError, match="revoked"):
        services.principal_of_token(before)
    _, after = credentials.issue_personal_token(principal=as_alice, user=alice, name="after", expires_at=soon)
    reset(alice, Client())
    assert services.principal_of_token(after).user_id == alice.pk
    assert events("token.revoked") == ["token.revoked"]
