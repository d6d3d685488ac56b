"""New mission in Chromium: another team is another answer, while what was typed stays."""

from __future__ import annotations

from typing import Any

import pytest

from agents import services
from agents.choices import Runtime
from agents.models import McpServer
from controlplane.tenancy.models import Membership, Team, User

from .test_in_the_browser import Show, problems_of, show

__all__ = ["show"]
pytestmark = [pytest.mark.browser, pytest.mark.slow]
NEW = "/missions/new?template=bring-your-own"


@pytest.fixture
def both_teams(world: Any, make_server: Any, other_team: Team, alice: User) -> Team:
    """Alice starts missions in two teams, one of which may not use the server that is needed. That one."""
    Membership.objects.create(organisation=other_team.organisation, team=other_team, user=alice, role="builder")
    server = make_server("time", ("get_current_time", "convert_time"))
    McpServer.objects.filter(pk=server.pk).update(team_ids=[world.team.pk])
    return other_team


@pytest.mark.parametrize(("theme", "width"), [("light", 1600), ("dark", 360)])
def test_choosing_a_team_says_at_once_whether_it_may_start_this(
    both_teams: Team,
    world: Any,
    alice: User,
    show: Show,
    theme: str,
    width: int,
) -> None:
    page = show(alice, f"{NEW}&team={world.team.pk}", theme=theme, width=width)
    start = page.get_by_role("button", name="Start mission")
    page.get_by_label("Name of your agent").fill("Weather watcher")
    page.get_by_role("button", name="Try them").click()
    page.get_by_text("Allowed", exact=True).wait_for()
    page.get_by_label("Team").select_option(label=both_teams.name)
    page.get_by_text("may not use a server that it needs: Time").wait_for()
    assert start.count() == 0
    assert page.get_by_label("Name of your agent").input_value() == "Weather watcher"
    page.get_by_role("button", name="Try them", exact=True).click()  # the answers were of the other team
    page.get_by_text("is not for this mission's team").nth(1).wait_for()
    assert problems_of(page, "new-mission-other-team", theme) == []
    page.get_by_label("Team").select_option(label=world.team.name)
    start.wait_for()


def test_the_words_follow_the_budget_while_it_is_typed(world: Any, alice: User, show: Show) -> None:
    page = show(alice, "/missions/new?template=receivables", theme="light", width=1600)
    page.get_by_label("Budget").fill("7")
    page.get_by_text("It starts when a second person has signed it off").wait_for()
    page.get_by_label("Budget").fill("4")
    page.get_by_text("It starts when").wait_for(state="detached")
    assert page.get_by_label("Budget").input_value() == "4"


def test_another_template_keeps_what_was_typed_and_brings_its_own_words(
    both_teams: Team, world: Any, alice: User, show: Show
) -> None:
    page = show(alice, f"/missions/new?template=receivables&team={world.team.pk}")
    page.get_by_label("Title").fill("Month end & more")
    page.get_by_label("Budget").fill("4.20")
    page.get_by_label("Importance").select_option("high")
    page.get_by_label("Team").select_option(label=both_teams.name)
    page.get_by_role("link", name="Bring your own agent").click()
    page.get_by_label("Name of your agent").wait_for()
    assert page.get_by_label("Title").input_value() == "Month end & more"
    assert page.get_by_label("Budget").input_value() == "4.20"
    assert page.get_by_label("Ends after").input_value() == "24"  # nobody touched it: this template's own
    assert page.get_by_label("Team").input_value() == str(both_teams.pk)
    page.get_by_text("At most $4.20").wait_for()
    page.get_by_label("Title").fill("Month end")
    page.locator("nav.choices a").first.click()
    page.wait_for_url("**template=receivables**")
    assert page.get_by_label("Title").input_value() == "Month end"
    assert page.get_by_label("Importance").input_value() == "high"
    assert page.complaints == []


@pytest.mark.parametrize(("theme", "width"), [("light", 1600), ("dark", 360)])
def test_the_agents_to_choose_from_are_those_of_the_team_and_have_a_name_already(
    both_teams: Team, world: Any, alice: User, show: Show, theme: str, width: int
) -> None:
    services.register_agent(actor=world.owner, team_id=world.team.pk, name="Weather watcher", runtime=Runtime.EXTERNAL)
    page = show(alice, f"{NEW}&team={world.team.pk}", theme=theme, width=width)
    choice, name = page.get_by_label("Agent", exact=True), page.get_by_label("Name of your agent")
    assert name.is_visible()
    choice.select_option(label="Weather watcher")
    assert not name.is_visible()
    assert problems_of(page, "new-mission-agent", theme) == []
    page.get_by_label("Team").select_option(label=both_teams.name)
    choice.wait_for(state="detached")
    assert name.is_visible()
    page.get_by_label("Team").select_option(label=world.team.name)
    choice.select_option(label="Weather watcher")
    page.get_by_role("button", name="Save as draft").click()
    page.get_by_role("heading", name="Weather watcher").wait_for()
    assert page.complaints == []
