"""An agent's credentials on its page: issued, shown once, used, replaced without a gap, revoked."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session
from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.models import Agent, Mission
from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Token, User
from controlplane.tenancy.services import principal_of_token

SignIn = Callable[..., Client]
HOSTILE = "<script>alert(1)</script>\u202egnp.exe"
_SECRET = re.compile(r"rmt_agt_[A-Za-z0-9_-]{43}_[0-9a-f]{8}")


def issue(browser: Client, world: Any, name: str = "Laptop", days: str = "90") -> str:
    """The secret, as the page shows it."""
    path = reverse("credential-new", args=[world.agent.pk])
    response = browser.post(path, {"name": name, "days": days}, follow=True)
    found = _SECRET.search(response.content.decode())
    assert found is not None
    return found[0]


def revoke(browser: Client, world: Any, token: Token) -> Any:
    return browser.post(reverse("credential-revoke", args=[world.agent.pk, token.pk]))


def page_of(browser: Client, world: Any) -> str:
    return str(browser.get(reverse("agent", args=[world.agent.pk])).content.decode())


def test_a_credential_is_shown_once_with_settings_to_paste(world: Any, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    path = reverse("credential-new", args=[world.agent.pk])
    response = browser.post(path, {"name": "Laptop", "days": "30"})
    part = browser.get(response["Location"], headers={"HX-Request": "true"}).content.decode()
    assert not _SECRET.search(part)
    html = page_of(browser, world)
    found = _SECRET.search(html)
    assert found is not None
    assert f"Bearer {found[0]}" in html
    assert "curl -s" in html
    assert not _SECRET.search(page_of(browser, world))
    token = Token.objects.get(kind="agt")
    assert f"rmt_agt_…{token.hint}" in page_of(browser, world)
    assert timedelta(days=29) < token.expires_at - now() <= timedelta(days=30)
    assert principal_of_token(found[0]).agent_id == world.agent.pk
    assert Entry.objects.get(event="token.issued").actor_name == "Alice"


def test_the_secret_is_for_who_issued_it_alone(world: Any, alice: User, nadia: User, signed_in: SignIn) -> None:
    signed_in(alice).post(reverse("credential-new", args=[world.agent.pk]), {"name": "Laptop", "days": "30"})
    assert not _SECRET.search(page_of(signed_in(nadia), world))


def test_one_takes_over_from_another_without_a_gap(world: Any, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    old, new = issue(browser, world, "Old"), issue(browser, world, "New")
    assert principal_of_token(old).agent_id == principal_of_token(new).agent_id
    html = page_of(browser, world)
    assert "was last used" in html
    assert "To change one without a gap" in html
    assert revoke(browser, world, Token.objects.get(name="Old")).status_code == 302
    with pytest.raises(RemitError, match=r"token\.revoked"):
        principal_of_token(old)
    assert principal_of_token(new).agent_id == world.agent.pk
    assert revoke(browser, world, Token.objects.get(name="Old")).status_code == 302
    assert Entry.objects.filter(event="token.revoked").count() == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"name": "", "days": "30"}, "This field is required."),
        ({"name": " \t ", "days": "30"}, "This field is required."),
        ({"name": "x" * 121, "days": "30"}, "at most 120 characters"),
        ({"name": "Laptop", "days": "100000"}, "Select a valid choice"),
        ({"name": "Laptop", "days": ""}, "This field is required."),
    ],
)
def test_a_bad_request_issues_nothing(
    world: Any, alice: User, signed_in: SignIn, body: dict[str, str], words: str
) -> None:
    response = signed_in(alice).post(reverse("credential-new", args=[world.agent.pk]), body)
    assert response.status_code == 422
    assert words in response.content.decode()
    assert not Token.objects.filter(kind="agt").exists()


def test_only_builders_and_administrators_see_the_buttons(
    world: Any, alice: User, bob: User, finn: User, charlie: User, signed_in: SignIn
) -> None:
    issue(signed_in(alice), world)
    token = Token.objects.get(kind="agt")
    for user in (bob, finn):
        html = page_of(signed_in(user), world)
        assert f"…{token.hint}" in html
        assert "Issue a credential" not in html
        assert "Revoke it" not in html
        assert revoke(signed_in(user), world, token).status_code == 404
        assert signed_in(user).get(reverse("credential-new", args=[world.agent.pk])).status_code == 403
    assert revoke(signed_in(charlie), world, token).status_code == 404
    token.refresh_from_db()
    assert token.revoked_at is None


def test_tokens_of_runs_people_and_other_agents_are_not_revoked_here(
    world: Any, alice: User, signed_in: SignIn, make_agent: Callable[..., Any], nobody: uuid.UUID
) -> None:
    browser = signed_in(alice)
    other = make_agent("Other")
    agents.issue_credential(actor=world.owner, agent_id=other.pk, name="x", expires_at=now() + timedelta(days=1))
    for token in Token.objects.all():
        assert revoke(browser, world, token).status_code == 404
    assert revoke(browser, world, Token(pk=nobody)).status_code == 404
    assert not Token.objects.filter(revoked_at__isnull=False).exists()


def test_a_retired_agent_gets_none(world: Any, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    issue(browser, world)
    agents.stop_mission(actor=world.owner, mission_id=world.mission.pk, reason="over")
    Mission.objects.update(state="stopped")
    agents.retire_agent(actor=world.owner, agent_id=world.agent.pk)
    response = browser.post(reverse("credential-new", args=[world.agent.pk]), {"name": "Laptop", "days": "30"})
    assert response.status_code == 409
    assert "This agent is retired" in response.content.decode()
    assert "Issue a credential" not in page_of(browser, world)
    assert revoke(browser, world, Token.objects.get(kind="agt")).status_code == 302


def test_a_credential_opens_nothing_while_its_agent_is_retired(world: Any) -> None:
    _, text = agents.issue_credential(
        actor=world.owner, agent_id=world.agent.pk, name="Laptop", expires_at=now() + timedelta(days=1)
    )
    Mission.objects.update(state="stopped")
    assert principal_of_token(text).agent_id == world.agent.pk
    agents.retire_agent(actor=world.owner, agent_id=world.agent.pk)
    with pytest.raises(RemitError, match="retired") as refused:
        principal_of_token(text)
    assert (refused.value.code, refused.value.status) == ("agent.retired", 401)
    agents.reinstate_agent(actor=world.owner, agent_id=world.agent.pk)
    assert principal_of_token(text).agent_id == world.agent.pk


def test_many_credentials_cost_no_more_and_their_names_are_words(
    world: Any, alice: User, signed_in: SignIn, queries: Callable[..., int]
) -> None:
    browser, path = signed_in(alice), reverse("agent", args=[world.agent.pk])
    issue(browser, world)
    few = queries(browser, path)
    for _ in range(12):
        issue(browser, world, HOSTILE)
    assert queries(browser, path) == few
    body = page_of(browser, world).split("<body")[1]
    assert "<script>alert" not in body
    assert "\u202e" not in body


def test_a_secret_waits_for_its_page_sealed_and_for_its_person_alone(
    world: Any, alice: User, signed_in: SignIn
) -> None:
    """A session is a row of the database, and backups hold rows."""
    browser = signed_in(alice)
    issued = reverse("credential-new", args=[world.agent.pk]), {"name": "Laptop", "days": "30"}
    Agent.objects.filter(pk=world.agent.pk).update(runtime="external")
    given = reverse("mission-operate", args=[world.mission.pk, "token"]), {}
    pages = (reverse("agent", args=[world.agent.pk]), reverse("mission", args=[world.mission.pk]))
    for (path, data), shows in zip((issued, given), pages, strict=True):
        assert browser.post(path, data).status_code == 302
        stored = [repr(session.get_decoded()) for session in Session.objects.all()]
        assert any("shown_once" in text for text in stored)
        assert not any("rmt_" in text for text in stored)
        assert re.search(r"rmt_(agt|run)_[A-Za-z0-9_-]{43}", browser.get(shows).content.decode())
        assert not any("shown_once" in repr(session.get_decoded()) for session in Session.objects.all())


def test_a_sealed_secret_that_no_key_opens_is_not_shown_and_breaks_no_page(
    world: Any, alice: User, signed_in: SignIn
) -> None:
    browser = signed_in(alice)
    browser.post(reverse("credential-new", args=[world.agent.pk]), {"name": "Laptop", "days": "30"})
    session = browser.session
    name = f"shown_once:{world.agent.pk}"
    session[name] = [*session[name][:2], "0000000000000000"]
    session.save()
    assert not _SECRET.search(page_of(browser, world))
