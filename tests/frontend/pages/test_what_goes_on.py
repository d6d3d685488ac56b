"""A mission's page says in plain words what goes on: while its program runs, after it ended, and what it claims."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.urls import reverse

from agents import services as agents
from agents.choices import RunState, StopScope
from agents.services import runs
from controlplane.tenancy.models import User
from controlplane.tenancy.types import system_principal

from .browsing import SignIn, page


def end_program(world: Any) -> None:
    run = world.mission.runs.select_related("mission").get()
    actor = system_principal(organisation_id=world.mission.organisation_id)
    assert runs.end_run(actor=actor, run=run, state=RunState.SUCCEEDED, reason="Its program ended")


def head_of(html: str) -> str:
    return html[html.index('id="mission-head"') : html.index('class="tabs"')]


def test_an_open_mission_whose_program_ended_is_not_called_running(world: Any, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    address = reverse("mission", args=[world.mission.pk])
    assert "Running" in head_of(page(browser, address))
    end_program(world)
    head = head_of(page(browser, address))
    assert "Running" not in head
    assert "Program ended" in head
    assert "Nothing runs: try again, or stop the mission." in head
    rows = page(browser, reverse("missions"))
    assert "Program ended" in rows[rows.index("<tbody") :]


def test_every_page_about_a_mission_says_the_same_of_it(world: Any, alice: User, signed_in: SignIn) -> None:
    agents.claim_outcome(principal=world.as_run, summary="31 reminders written")
    end_program(world)
    browser = signed_in(alice)
    for name in ("mission", "mission-change", "mission-ask"):
        html = page(browser, reverse(name, args=[world.mission.pk]))
        title = html[html.index("<h1>") : html.index("</div>", html.index("<h1>"))]
        assert "Program ended" in title, name
        assert "Claimed, waits for you" in title, name
        assert "Running" not in title, name
    for name, key in (("server", world.server.pk), ("agent", world.agent.pk)):
        html = page(browser, reverse(name, args=[key]))
        assert "Program ended" in html[html.index("<main") :], name


def test_an_ended_mission_has_no_outcome_to_come(world: Any, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    outcome = re.compile(r'data-label="Outcome"><span class="muted">([^<]+)<')
    assert outcome.findall(page(browser, reverse("missions"))) == ["none yet"]
    agents.stop(actor=world.owner, scope=StopScope.MISSION, scope_id=world.mission.pk, reason="Look first")
    assert outcome.findall(page(browser, reverse("missions"))) == ["none"]


def test_a_claimed_outcome_names_who_answers_it_to_everybody_else(
    busy: Any, alice: User, bob: User, signed_in: SignIn
) -> None:
    agents.claim_outcome(principal=busy.as_run, summary="31 reminders written")
    end_program(busy)
    address = reverse("mission", args=[busy.mission.pk])
    assert "Claimed, waits for you" in head_of(page(signed_in(alice), address))
    head = head_of(page(signed_in(bob), address))
    assert "Claimed, waits for Alice" in head
    assert "The program ended and says that it is finished; Alice accepts or rejects that." in head


def test_the_claim_is_read_as_sentences_and_shaped_evidence_as_a_table(
    busy: Any, alice: User, signed_in: SignIn
) -> None:
    evidence = [{"outcome": "reached"}, {"text": "40.00 EUR on INV-0113"}, {"invoice": "INV-0114", "sent": True}]
    agents.claim_outcome(principal=busy.as_run, summary="31 reminders written", evidence=evidence)
    html = page(signed_in(alice), reverse("mission-tab", args=[busy.mission.pk, "checklist"]))
    claim = html[html.index("The agent's claim") :]
    assert "<li" in claim[: claim.index("40.00 EUR on INV-0113")]
    assert "[1].text" not in claim
    assert "INV-0114" in claim


@pytest.mark.parametrize("part", ["checks_count", "runs_count"])
def test_numbers_on_the_tabs_are_parts_of_their_own(busy: Any, alice: User, signed_in: SignIn, part: str) -> None:
    tab = {"checks_count": "checklist", "runs_count": "runs"}[part]
    html = page(signed_in(alice), reverse("mission-tab", args=[busy.mission.pk, tab]) + f"?part={part}")
    assert html.strip().startswith('<span class="n"')
    assert len(html) < 600
