"""A one-time link: whom it signs in, and what to do with one that is spent."""

from __future__ import annotations

from collections.abc import Callable

from django.test import Client
from django.urls import reverse

from controlplane.tenancy import services as tenancy
from controlplane.tenancy.models import User

SignIn = Callable[..., Client]


def test_the_link_says_whom_it_signs_in_and_opening_it_spends_nothing(alice: User, signed_in: SignIn) -> None:
    path = reverse("sign-in-link", args=[tenancy.make_sign_in_link(user=alice)])
    browser = signed_in(None)
    for _ in range(2):
        html = browser.get(path).content.decode()
        assert f"As <b>Alice</b>, {alice.email}." in html
        assert "Sign in as Alice" in html
    assert browser.post(path).status_code == 302
    assert browser.get("/me").status_code == 200


def test_a_spent_link_offers_no_sign_in_and_says_what_to_do(alice: User, signed_in: SignIn) -> None:
    path = reverse("sign-in-link", args=[tenancy.make_sign_in_link(user=alice)])
    signed_in(None).post(path)
    for answer in (signed_in(None).get(path), signed_in(None).post(path), signed_in(None).get("/sign-in/nonsense")):
        html = answer.content.decode()
        assert answer.status_code == 410
        assert "This link no longer works" in html
        assert "<code>./manage.py signin --user E-MAIL</code>" in html
        assert "`" not in html
        assert 'type="submit"' not in html
        assert alice.email not in html


def test_someone_signed_in_already_is_told_who_they_are(alice: User, bob: User, signed_in: SignIn) -> None:
    path = reverse("sign-in-link", args=[tenancy.make_sign_in_link(user=alice)])
    assert "you are Bob here now, and that ends" in signed_in(bob).get(path).content.decode()
    signed_in(None).post(path)
    html = signed_in(bob).get(path).content.decode()
    assert "You are signed in as <b>Bob</b>" in html
    assert "Go on as Bob" in html
