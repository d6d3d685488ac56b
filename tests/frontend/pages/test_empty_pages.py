"""What pages say where there is nothing yet."""

from __future__ import annotations

from django.urls import reverse

from controlplane.tenancy.models import Organisation, User

from .browsing import SignIn, page


def test_without_any_team_the_forms_say_what_to_do(northwind: Organisation, nadia: User, signed_in: SignIn) -> None:
    for name in ("agent-new", "server-new"):
        assert "There is no team yet. An administrator adds one" in page(signed_in(nadia), reverse(name))


def test_every_list_teaches_when_it_is_empty(charlie: User, signed_in: SignIn) -> None:
    browser = signed_in(charlie)
    for name, words in (
        ("missions", "No missions yet"),
        ("agents", "No agents yet"),
        ("approvals", "Nothing waits for you"),
        ("budgets", "No budgets yet"),
        ("servers", "No servers yet"),
        ("home", "Start the sample mission"),
    ):
        assert words in page(browser, reverse(name)), name
    assert "Nothing is open" in page(browser, reverse("approvals") + "?tab=open")
    assert "Nothing decided yet" in page(browser, reverse("approvals") + "?tab=decided")
