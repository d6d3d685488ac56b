"""Every address with an id in it, asked by a stranger for a row that exists: nothing there, and nothing changes."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from controlplane.common import rate_limits
from controlplane.common.clock import now
from controlplane.tenancy import tokens
from controlplane.tenancy.models import Membership, TokenKind, User
from controlplane.tenancy.types import Role
from governance.models import Escalation
from tests.frontend.api.conftest import Api
from tests.frontend.pages import every_address
from tests.frontend.pages.foreign import BY_SECRET, ROWS, WORDS, Route, body_for, contents, furnish, pages, resources

# A version that nothing has, so that a stranger's request is stopped by whose it is and by nothing before that.
ANY_VERSION = '"1-0"'


@pytest.fixture
def furnished(asked: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    furnish(asked)
    monkeypatch.setattr(rate_limits, "_LIMITERS", {})
    return asked


def token_of(user: User) -> str:
    organisation = Membership.objects.filter(user=user).values_list("organisation_id", flat=True)[0]
    fields = {"organisation_id": organisation, "user_id": user.pk, "expires_at": now() + timedelta(hours=1)}
    return tokens.issue(kind=TokenKind.PERSON, name="Test", **fields)[1]


def named(routes: list[Route]) -> list[Route]:
    """Those that name a row."""
    return [route for route in routes if set(route.parameters) & set(ROWS) and route.name not in BY_SECRET]


def test_every_parameter_of_an_address_has_a_row_of_another_organisation() -> None:
    unknown = {
        (route.name, parameter)
        for route in [*pages(), *resources()]
        for parameter in route.parameters
        if route.name not in BY_SECRET and parameter not in ROWS and parameter not in WORDS
    }
    assert unknown == set(), "say in foreign.py which row of Northwind a stranger would name"
    assert len(named(pages())) > 50
    assert len(named(resources())) > 70


def test_the_rows_are_there_for_who_may_see_them(furnished: Any, nadia: User, signed_in: Callable[..., Client]) -> None:
    """The refusals below mean something."""
    api = Api(token_of(nadia))
    for route in named(resources()):
        if hasattr(route.view, "get") and "get" in route.view.http_method_names:
            for path in route.addresses(furnished):
                answer = api.get(path.removeprefix("/api/v1/"))
                gone = route.name.endswith(("/file", "/test")) or "sandboxes" in route.name
                assert answer.status_code in ((200, 404, 410) if gone else (200,)), (path, answer.content)


def test_an_address_of_a_form_alone_answers_a_page_that_leads_to_its_own(
    furnished: Any, nadia: User, signed_in: Callable[..., Client]
) -> None:
    browser, met = signed_in(nadia), 0
    for route in pages():
        for path in route.addresses(furnished) if route.name not in BY_SECRET else ():
            answer = browser.get(path)
            if answer.status_code != 405:
                continue
            html, met = answer.content.decode(), met + 1
            assert "Nothing is to be seen at this address" in html, path
            assert "POST" in answer["Allow"], path
            (above,) = re.findall(r'href="([^"]+)"[^>]*>(?:<svg.*?</svg>)?Go to the page it belongs to', html)
            assert browser.get(above).status_code in (200, 302), (path, above)
    assert met > 40
    question = Escalation.objects.latest("id").pk
    html = browser.get(f"/approvals/{question}/decide").content.decode()
    assert f'class="button primary" href="/approvals/{question}"' in html
    sent = browser.post("/costs")
    assert (sent.status_code, b"This page takes no form" in sent.content) == (405, True)


def test_no_page_shows_or_changes_a_row_of_another_organisation(
    furnished: Any, charlie: User, signed_in: Callable[..., Client]
) -> None:
    bodies = dict(every_address.forms(furnished).values())
    browser = signed_in(charlie)
    browser.get("/")
    before = contents()
    for route in named(pages()):
        for path in route.addresses(furnished):
            shown, sent = browser.get(path), browser.post(path, bodies.get(path, {"reason": "no", "sure": "yes"}))
            assert {shown.status_code, sent.status_code} <= {404, 405}, (path, shown.status_code, sent.status_code)
            assert 404 in (shown.status_code, sent.status_code), path
    assert contents() == before


def test_no_resource_shows_or_changes_a_row_of_another_organisation(furnished: Any, charlie: User) -> None:
    api = Api(token_of(charlie))
    api.get("missions")  # notes when the token was last used
    before = contents()
    for route in named(resources()):
        for path in route.addresses(furnished):
            short = path.removeprefix("/api/v1/")
            if hasattr(route.view, "get") and "get" in route.view.http_method_names:
                assert api.get(short).status_code == 404, path
            if hasattr(route.view, "post"):
                body = body_for(route.view.post.operation.body, furnished)
                answer = api.post(short, body, if_match=ANY_VERSION)
                assert answer.status_code == 404, (path, body, answer.content)
    assert contents() == before


@pytest.mark.parametrize("role", list(Role), ids=lambda role: role.value)
def test_no_role_of_another_organisation_is_told_that_a_row_exists(
    furnished: Any, make_person: Callable[..., User], elsewhere: Any, role: Role
) -> None:
    """What a role may not do at all is refused before any row is looked for: alike for rows that exist and others."""
    api = Api(token_of(make_person("Robin", elsewhere, role)))
    for route in named(resources()):
        if not (hasattr(route.view, "get") and "get" in route.view.http_method_names):
            continue
        for path in route.addresses(furnished):
            answer = api.get(path.removeprefix("/api/v1/"))
            allowed = route.view.get.operation.permission
            expected = 404 if allowed is None or answer.json()["code"] != "permission.denied" else 403
            assert answer.status_code == expected, path
            assert expected == 404 or allowed.value in answer.json()["detail"], path


def test_nobody_and_who_was_shut_out_reach_no_row(furnished: Any, charlie: User, nadia: User) -> None:
    revoked = Api(token_of(nadia))
    revoked.get("missions")  # notes when the token was last used
    Membership.objects.filter(user=nadia).delete()
    before = contents()
    for route in named(resources()):
        for path in route.addresses(furnished):
            short = path.removeprefix("/api/v1/")
            for api in (Api(), revoked):
                answer = api.get(short) if hasattr(route.view, "get") else api.post(short, {})
                assert answer.status_code == 401, path
    assert contents() == before
