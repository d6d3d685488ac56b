"""The pages of people who are not signed in are ours, not the library's, and lead somewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from allauth.account.forms import LoginForm, ResetPasswordForm
from django.http import HttpRequest
from django.template.loader import get_template

TEMPLATES = Path(__file__).parents[3] / "frontend" / "templates"
Requests = Callable[..., HttpRequest]


@pytest.mark.parametrize(
    "name",
    [
        "account/login.html",
        "account/logout.html",
        "account/signup.html",
        "account/signup_closed.html",
        "account/password_reset.html",
        "account/password_reset_from_key.html",
        "account/reauthenticate.html",
        "allauth/layouts/base.html",
    ],
)
def test_the_page_people_get_is_ours(name: str) -> None:
    assert Path(str(get_template(name).origin)).is_relative_to(TEMPLATES)


def test_signing_in_is_a_plain_post_with_labels_a_token_and_a_way_out(a_request: Requests) -> None:
    html = get_template("account/login.html").render({"form": LoginForm()}, a_request(principal=None))
    assert '<form class="form" method="post" action="/accounts/login/">' in html
    assert "csrfmiddlewaretoken" in html
    assert 'for="id_login"' in html
    assert 'autocomplete="current-password"' in html
    assert "/accounts/password/reset/" in html


def test_nobody_is_offered_an_account_they_cannot_make(a_request: Requests) -> None:
    for name, context in (("account/login.html", {"form": LoginForm()}), ("account/signup.html", {})):
        html = get_template(name).render(context, a_request(principal=None))
        assert "/accounts/signup/" not in html
        assert "invit" in html


def test_a_wrong_address_is_said_at_its_field(a_request: Requests) -> None:
    form = ResetPasswordForm({"email": "nobody"})
    html = get_template("account/password_reset.html").render({"form": form}, a_request(principal=None))
    assert 'aria-invalid="true"' in html
    assert "valid email" in html


def test_a_used_reset_link_leads_to_a_new_one(a_request: Requests) -> None:
    html = get_template("account/password_reset_from_key.html").render({"token_fail": True}, a_request(principal=None))
    assert "does not work any more" in html
    assert 'href="/accounts/password/reset/"' in html


def test_the_second_factor_stands_in_the_same_entrance(a_request: Requests) -> None:
    source = (
        '{% extends "allauth/layouts/entrance.html" %}{% block head_title %}Code{% endblock %}'
        "{% block content %}<h1>Code</h1>{% endblock %}"
    )
    from django.template import engines

    html = engines["django"].from_string(source).render({}, a_request(principal=None))
    assert "<title>Code · Remit</title>" in html
    assert 'class="entrance"' in html
