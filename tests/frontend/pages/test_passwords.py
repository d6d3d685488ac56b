"""A new password ends what the old one opened, in the list of sessions and on open pages too."""

from __future__ import annotations

import re
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from django.core import mail
from django.test import Client
from django.urls import reverse

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
