"""Starting a mission: what stands above its budget, what became of it, and samples that are still being installed."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as project
from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.choices import MissionState
from agents.models import McpServer, Mission
from controlplane.common import installing
from controlplane.common.installing import Installing
from controlplane.tenancy.models import Organisation, User

SignIn = Callable[..., Client]
NEW = "/missions/new"


def page(browser: Client, path: str) -> str:
    response = browser.get(path)
    assert response.status_code == 200, path
    return html.unescape(re.sub(r"<[^>]+>", "", str(response.content.decode())))


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(project.CONFIG, "state_dir", tmp_path)
    return tmp_path


def test_the_form_names_the_sign_off_limit_and_what_the_team_has(world: Any, alice: User, signed_in: SignIn) -> None:
    text = page(signed_in(alice), NEW)
    assert "Above $5.00 a second person signs it off." in text
    assert re.search(f"The team {world.team.name} has .100.00 a month.*: no mission of it can spend more", text)


def test_a_budget_above_the_teams_is_said_on_the_draft_and_to_who_signs_it_off(
    world: Any, alice: User, bob: User, signed_in: SignIn
) -> None:
    draft = world.draft("Chase everything", budget="150.00")
    said = re.compile(f"The team {world.team.name} has .100.00 a month.*: this mission can't spend more")
    text = page(signed_in(alice), reverse("mission", args=[draft.pk]))
    assert said.search(text)
    assert "set aside" not in text
    agents.submit_mission(actor=world.owner, mission_id=draft.pk)
    text = page(signed_in(bob), reverse("approvals"))
    assert said.search(text)
    assert f"$150.00 for {world.agent.name}" in text  # the row says how much and for whom


def test_a_budget_that_fits_says_nothing_of_others(world: Any, alice: User, signed_in: SignIn) -> None:
    draft = world.draft("Chase a few", budget="2.00")
    assert "can't spend more" not in page(signed_in(alice), reverse("mission", args=[draft.pk]))


def test_a_mission_the_gate_refused_is_not_called_started(world: Any, alice: User, signed_in: SignIn) -> None:
    from governance.bundles import forget
    from governance.models import PolicyBundle

    draft = world.draft("Chase a few")
    PolicyBundle.objects.update(state="retired")
    forget()
    browser = signed_in(alice)
    browser.post(reverse("mission-operate", args=[draft.pk, "submit"]))
    text = page(browser, reverse("mission", args=[draft.pk]))
    assert "Not started." in text
    assert "Started." not in text.replace("Not started.", "")
    draft.refresh_from_db()
    assert draft.state != MissionState.ACTIVE


def test_a_mission_of_ones_own_agent_is_called_as_its_owner_says(
    world: Any, make_server: Any, alice: User, signed_in: SignIn
) -> None:
    make_server("time", ("get_current_time", "convert_time"))
    browser = signed_in(alice)
    common = {"template": "bring-your-own", "agent": "Weather watcher", "draft": "1", "team": str(world.team.pk)}
    browser.post(NEW, common)
    browser.post(NEW, {**common, "title": "Watch the weather in May"})
    titles = set(Mission.objects.filter(agent__name="Weather watcher").values_list("title", flat=True))
    assert titles == {"Weather watcher", "Watch the weather in May"}


def test_pages_say_that_the_samples_are_being_installed_until_they_are_ready(
    northwind: Organisation, budgets_open: None, make_server: Any, alice: User, signed_in: SignIn, state_dir: Path
) -> None:
    step = "Installing the environment of books"
    installing.write(state_dir, Installing(northwind.slug, step=step, done=1, total=9))
    browser = signed_in(alice)
    for path in ("/", NEW, "/servers"):
        text = page(browser, path)
        assert "The samples are being installed" in text, path
        assert f"{step}." in text
        assert "1 of 9 done" in text
    assert "Start the sample" not in page(browser, "/").replace("Start the sample mission", "")
    new = browser.get(NEW).content.decode()
    assert 'name="start"' not in new
    assert "The buttons appear here when they are ready." in new
    refused = browser.post(NEW, {"template": "receivables", "start": "1"})
    assert refused.status_code == 409
    assert "still being installed" in refused.content.decode()
    assert not Mission.objects.exists()

    McpServer.objects.all().delete()
    make_server("books", ("overdue",))
    make_server("sqlite", ("read_query",))
    assert 'name="start"' in browser.get(NEW).content.decode()  # ready, while others are still on their way
    assert 'name="start"' not in browser.get(f"{NEW}?template=caretaker").content.decode()

    installing.write(state_dir, Installing(northwind.slug, done=9, total=9))
    assert "being installed" not in page(browser, "/")
    assert "It needs servers that are not registered here: Git." in page(browser, f"{NEW}?template=caretaker")


def test_a_failed_installation_is_said_with_its_reason(
    northwind: Organisation, budgets_open: None, alice: User, signed_in: SignIn, state_dir: Path
) -> None:
    installing.write(state_dir, Installing(northwind.slug, failure="The disk is full."))
    text = page(signed_in(alice), "/")
    assert "The samples could not be installed" in text
    assert "The disk is full." in text


def test_another_organisation_hears_nothing_of_it(
    northwind: Organisation, charlie: User, signed_in: SignIn, state_dir: Path
) -> None:
    installing.write(state_dir, Installing(northwind.slug, step="Installing", total=9))
    assert "being installed" not in page(signed_in(charlie), "/")
