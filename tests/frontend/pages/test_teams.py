"""Teams: added on a page or over REST, and never outside the organisation's budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.choices import Runtime
from budgets.models import Account
from controlplane.audit.models import Entry
from controlplane.tenancy.models import Team, User
from controlplane.tenancy.types import Principal
from tests.frontend.pages.foreign import contents

SignIn = Callable[..., Client]


def test_a_team_that_was_added_has_a_budget_beneath_the_organisations_and_can_be_given_agents(
    world: Any, nadia: User, as_nadia: Principal, signed_in: SignIn
) -> None:
    browser = signed_in(nadia)
    answer = browser.post(reverse("teams"), {"name": "Night shift"}, follow=True)
    assert "Night shift is here" in answer.content.decode()
    team = Team.objects.get(name="Night shift")
    account = Account.objects.get(subject_type="team", subject_id=team.pk)
    assert account.parent_id == world.account_of("organisation", team.organisation_id)
    assert "Night shift" in browser.get(reverse("budgets") + "?q=Night shift").content.decode()
    agent = agents.register_agent(actor=as_nadia, team_id=team.pk, name="Owl", runtime=Runtime.EXTERNAL)
    assert Account.objects.get(subject_type="agent", subject_id=agent.pk).parent_id == account.pk
    assert {"team.created", "budget.opened"} <= set(Entry.objects.values_list("event", flat=True))


def test_an_agent_of_a_team_that_never_got_a_budget_does_not_spend_outside_the_organisations(
    world: Any, as_nadia: Principal
) -> None:
    team = Team.objects.create(organisation_id=as_nadia.organisation_id, name="Made earlier", slug="earlier")
    agent = agents.register_agent(actor=as_nadia, team_id=team.pk, name="Owl", runtime=Runtime.EXTERNAL)
    account = Account.objects.get(subject_type="agent", subject_id=agent.pk)
    assert account.path[0] == world.account_of("organisation", team.organisation_id)
    assert account.depth == 2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "This field is required."),
        ("   ", "This field is required."),
        ("x" * 121, "at most 120 characters"),
        ("!!!", "letters in it"),
        ("receivables", "already"),
    ],
)
def test_a_name_that_can_not_be_is_refused_and_stays_in_its_field(
    world: Any, nadia: User, signed_in: SignIn, name: str, words: str
) -> None:
    browser = signed_in(nadia)
    before = contents()
    answer = browser.post(reverse("teams"), {"name": name})
    assert answer.status_code in (409, 422)
    assert words in answer.content.decode()
    assert contents() == before


def test_who_may_not_change_the_organisation_sees_the_teams_and_adds_none(
    world: Any, alice: User, charlie: User, signed_in: SignIn
) -> None:
    browser = signed_in(alice)
    html = browser.get(reverse("teams")).content.decode()
    assert "Receivables" in html
    assert "Add a team" not in html
    before = contents()
    assert browser.post(reverse("teams"), {"name": "Mine"}).status_code == 403
    assert contents() == before
    assert "Receivables" not in signed_in(charlie).get(reverse("teams")).content.decode()
