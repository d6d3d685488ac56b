"""A mission for an agent that is registered already: from its page, and chosen in the form."""

from __future__ import annotations

import uuid
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from agents import services
from agents.choices import AgentState, Runtime
from agents.models import Agent, Mission
from controlplane.audit.models import Entry
from controlplane.tenancy.models import Membership, Organisation, Team, User
from controlplane.tenancy.types import Role
from frontend.views import new_mission

from .browsing import SignIn, page

NEW = "/missions/new"
OWN = "bring-your-own"


@pytest.fixture
def mine(world: Any, make_server: Any) -> Agent:
    """Registered on its page, and nothing else."""
    make_server("time", ("get_current_time", "convert_time"))
    return services.register_agent(
        actor=world.owner, team_id=world.team.pk, name="Weather watcher", runtime=Runtime.EXTERNAL
    )


def made() -> tuple[int, int, int]:
    return Mission.objects.count(), Agent.objects.count(), Entry.objects.count()


def draft(browser: Client, agent_id: object, template: str = OWN, **fields: str) -> Any:
    return browser.post(NEW, {"template": template, "agent_id": str(agent_id), "draft": "1", **fields})


def test_its_page_leads_to_a_form_that_gives_it_a_mission(mine: Agent, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    link = f"{NEW}?agent_id={mine.pk}"
    assert f'href="{link}"' in page(browser, reverse("agent", args=[mine.pk]))
    form = page(browser, link)
    assert f'name="template" value="{OWN}"' in form
    assert f'<option value="{mine.pk}" selected>Weather watcher</option>' in form
    response = draft(browser, mine.pk, agent="My agent", title="", budget="0.50", hours="3")
    mission = Mission.objects.get(agent=mine)
    assert response["Location"] == reverse("mission", args=[mission.pk])
    assert (mission.title, mission.state, mission.team_id) == ("Weather watcher", "draft", mine.team_id)
    assert [grant["tool"] for grant in mission.versions.get().grants] == [
        "time__get_current_time",
        "time__convert_time",
    ]
    assert not Agent.objects.filter(name="My agent").exists()
    assert f'href="{link}"' in page(browser, reverse("agent", args=[mine.pk]))  # and the next one


def test_one_that_is_far_down_the_list_is_still_chosen(
    mine: Agent, world: Any, alice: User, signed_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_mission, "MOST_AGENTS", 1)
    services.register_agent(actor=world.owner, team_id=mine.team_id, name="A clock", runtime=Runtime.EXTERNAL)
    form = page(signed_in(alice), f"{NEW}?agent_id={mine.pk}")
    assert f'<option value="{mine.pk}" selected>Weather watcher</option>' in form
    assert form.count("Weather watcher</option>") == 1


def test_a_new_agent_stays_what_the_form_makes_by_itself(mine: Agent, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    assert '<option value="" selected>A new one, named below</option>' in page(browser, NEW, template=OWN)
    draft(browser, "", agent="Clock watcher")
    assert Mission.objects.get(agent__name="Clock watcher").title == "Clock watcher"


def test_an_agent_that_runs_a_shipped_program_takes_the_template_of_it(
    world: Any, alice: User, signed_in: SignIn
) -> None:
    second = services.register_agent(
        actor=world.owner, team_id=world.team.pk, name="Night clerk", runtime=Runtime.MANAGED, program="receivables"
    )
    browser = signed_in(alice)
    form = page(browser, f"{NEW}?agent_id={second.pk}")
    assert 'name="template" value="receivables"' in form
    assert f'<option value="{second.pk}" selected>Night clerk</option>' in form
    assert '<option value="">Receivables clerk</option>' in form
    assert str(second.pk) not in page(browser, NEW, template=OWN)
    draft(browser, second.pk, "receivables", title="By night")
    assert Mission.objects.get(title="By night").agent == second


def test_an_agent_that_can_not_be_given_it_is_refused_and_nothing_is_made(
    mine: Agent, world: Any, other_team: Team, alice: User, signed_in: SignIn
) -> None:
    browser, before = signed_in(alice), made()
    for nobody in (uuid.uuid4(), "none"):
        assert browser.get(f"{NEW}?agent_id={nobody}").status_code == 404
        assert draft(browser, nobody).status_code == 404
    other = draft(browser, world.agent.pk)  # it runs the clerk's program
    assert other.status_code == 422
    assert "runs something else than this mission is for" in unescape(other.content.decode())
    Membership.objects.create(organisation=other_team.organisation, team=other_team, user=alice, role="builder")
    elsewhere = draft(browser, mine.pk, team=str(other_team.pk))
    assert (elsewhere.status_code, "is of another team" in elsewhere.content.decode()) == (422, True)
    assert f'value="{mine.pk}"' not in elsewhere.content.decode()
    Agent.objects.filter(pk=mine.pk).update(state=AgentState.RETIRED)
    for answer in (browser.get(f"{NEW}?agent_id={mine.pk}"), draft(browser, mine.pk, team=str(world.team.pk))):
        assert answer.status_code == 422
        assert "Weather watcher is retired and takes no new missions." in answer.content.decode()
    assert "?agent_id=" not in page(browser, reverse("agent", args=[mine.pk]))
    assert made() == before


def test_agents_of_others_are_not_found_and_not_listed(
    mine: Agent, other_team: Team, northwind: Organisation, charlie: User, make_person: Any, signed_in: SignIn
) -> None:
    for stranger in (charlie, make_person("Robin", northwind, Role.BUILDER, team=other_team)):
        browser = signed_in(stranger)
        assert "Weather watcher" not in browser.get(f"{NEW}?template={OWN}").content.decode()
        before = made()
        assert browser.get(f"{NEW}?agent_id={mine.pk}").status_code == 404
        assert draft(browser, mine.pk).status_code == 404
        assert made() == before


def test_who_may_not_start_missions_is_not_led_there(mine: Agent, dana: User, signed_in: SignIn) -> None:
    html = page(signed_in(dana), reverse("agent", args=[mine.pk]))
    assert "A mission gives this agent a goal" in html
    assert "?agent_id=" not in html
