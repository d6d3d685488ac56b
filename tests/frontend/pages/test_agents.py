"""The pages of agents: registering one, its health and refusals, and that a busy one is not retired."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from agents.models import Agent
from controlplane.common.clock import now
from controlplane.tenancy.models import User

from .browsing import SignIn, page


def test_registering_an_agent_with_a_form(world: Any, alice: User, signed_in: SignIn) -> None:
    body = {"team": str(world.team.pk), "name": "Buyer", "runtime": "external", "capabilities": "buying, haggling"}
    response = signed_in(alice).post(reverse("agent-new"), {**body, "limit": "12.50"})
    agent = Agent.objects.get(name="Buyer")
    assert response["Location"] == reverse("agent", args=[agent.pk])
    assert agent.capabilities == ["buying", "haggling"]
    html = page(signed_in(alice), reverse("budget", args=[agent.account_id]))
    assert "$12.50" in html


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "This field is required."),
        ({"name": "Receivables clerk"}, "An agent is already called"),
        ({"runtime": "managed", "program": ""}, "Choose what our sandbox runs."),
        ({"limit": "a lot"}, "An amount such as 5.00: digits only."),
        ({"limit": "-1"}, "An amount such as 5.00: digits only."),
        ({"team": "0190a000-0000-7000-8000-000000000000"}, "Select a valid choice"),
        ({"runtime": "moon"}, "Select a valid choice"),
    ],
)
def test_a_bad_registration_keeps_what_was_typed(
    world: Any, alice: User, signed_in: SignIn, change: dict[str, str], words: str
) -> None:
    body = {"team": str(world.team.pk), "name": "Buyer", "runtime": "external", "description": "Buys paper"}
    response = signed_in(alice).post(reverse("agent-new"), {**body, **change})
    assert response.status_code == 422
    html = response.content.decode()
    assert words in html
    assert "Buys paper" in html
    assert "Command" not in html  # a field of the interface only
    assert Agent.objects.count() == 1


def test_an_agents_page_has_its_health_credentials_and_refusals(busy: Any, alice: User, signed_in: SignIn) -> None:
    html = page(signed_in(alice), reverse("agent", args=[busy.agent.pk]))
    for words in ("Alive", "rmt_run_…", "Chase overdue invoices", "grant.missing", "$0.12", "goodwill credits"):
        assert words in html, words
    Agent.objects.update(last_seen_at=now() - timedelta(minutes=5))
    quiet = page(signed_in(alice), reverse("agent", args=[busy.agent.pk]))
    assert "Alive" not in quiet
    assert "5 min ago" in quiet


def test_a_busy_agent_is_not_retired(world: Any, alice: User, signed_in: SignIn) -> None:
    response = signed_in(alice).post(reverse("agent-retire", args=[world.agent.pk]), follow=True)
    assert "This agent still has missions." in response.content.decode()
    assert Agent.objects.get().state == "active"
