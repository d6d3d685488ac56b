"""A product team's day: a remit in plain sentences, a mission watched live, a refusal understood, more budget asked for
and given, and the outcome accepted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.end_to_end.conftest import Installation
from tests.end_to_end.looking import look

pytestmark = [pytest.mark.browser, pytest.mark.sandbox, pytest.mark.slow, pytest.mark.timeout(400)]

TITLE = "Tidy the depot before the audit"
GOAL = (
    "Put what was left uncommitted in the depot on a branch of its own, say honestly what it is, and leave main alone."
)
REPOSITORY = "/data/repository"


def test_a_product_team_gives_a_remit_watches_it_and_accepts_what_came_of_it(
    remit: Installation, signed_in: Callable[[str], Any]
) -> None:
    nadia = signed_in("nadia")
    write_a_remit(nadia)
    ask_the_gate(nadia)
    start_and_watch(nadia)
    mission = nadia.url
    understand_a_refusal(nadia)

    nadia.goto(mission)
    ask_for_budget(nadia)
    dana = signed_in("dana")
    grant_budget(dana)
    nadia.get_by_text("Raised").wait_for()  # by itself: the page was not reloaded
    nadia.get_by_text("Dana agreed").wait_for()
    look(nadia, "product-budget-raised")

    nadia.goto(mission)
    nadia.get_by_role("button", name="Accept outcome").click()
    nadia.get_by_role("button", name="Accept for good").click()
    nadia.get_by_text("Outcome accepted").first.wait_for()
    nadia.get_by_text("Succeeded").first.wait_for()
    look(nadia, "product-accepted")
    assert outcome_of(remit, mission) == "succeeded accepted"


def write_a_remit(page: Any) -> None:
    """Four fields and a try, then the remit in one's own words."""
    page.get_by_role("link", name="New mission").first.click()
    page.get_by_role("link", name="Repository caretaker").click()
    page.get_by_role("heading", name="Repository caretaker").wait_for()
    fields = page.locator("form:has(#id_title) :is(input:not([type=hidden]), select, textarea)")
    assert fields.count() <= 4
    page.get_by_role("button", name="Try them").click()
    page.get_by_text("This mission may not use git__git_reset").wait_for()
    look(page, "product-new-mission")
    page.get_by_label("Title").fill(TITLE)
    page.get_by_role("button", name="Edit every grant first").click()
    page.get_by_role("heading", name="Change the remit").wait_for()
    page.get_by_label("Goal").fill(GOAL)
    page.locator("summary", has_text="Create branches").click()
    sentence = page.locator("details[open]").get_by_label("In words")
    sentence.fill("Make branches whose names begin with care/, five at most")


def ask_the_gate(page: Any) -> None:
    """About the remit as it stands in the form, before anything of it is sent."""
    trial = page.locator("#try")
    trial.get_by_label("Tool").fill("git__git_create_branch")
    trial.get_by_label("Arguments").fill(json.dumps({"repo_path": REPOSITORY, "branch_name": "care/audit"}))
    trial.get_by_role("button", name="Ask the gate").click()
    trial.get_by_text("It would run at once").wait_for()
    look(page, "product-gate-allows")
    trial.get_by_label("Arguments").fill(json.dumps({"repo_path": REPOSITORY, "branch_name": "main"}))
    trial.get_by_role("button", name="Ask the gate").click()
    trial.get_by_text("git__git_create_branch is allowed only within limits on branch_name").wait_for()
    look(page, "product-gate-refuses")
    assert page.get_by_label("Goal").input_value() == GOAL
    page.get_by_role("button", name="Preview the change").click()
    page.locator("#preview").get_by_text("It counts at once.").wait_for()
    look(page, "product-remit-preview")
    page.get_by_role("button", name="Change the remit").click()
    page.get_by_text("Make branches whose names begin with care/").first.wait_for()
    look(page, "product-remit")


def start_and_watch(page: Any) -> None:
    """What the agent does appears by itself: the page is not loaded again until it claims its outcome."""
    page.get_by_role("button", name="Start mission").click()
    page.get_by_role("link", name="Timeline").click()
    page.evaluate("window.untouched = true")
    timeline = page.locator("#mission-timeline")
    timeline.get_by_text("git__git_status").first.wait_for(timeout=60_000)
    timeline.get_by_text("This mission may not use git__git_reset").wait_for(timeout=60_000)
    timeline.get_by_text("git__git_commit").wait_for(timeout=60_000)
    page.get_by_role("button", name="Accept outcome").wait_for(timeout=60_000)
    assert page.evaluate("window.untouched") is True
    look(page, "product-mission")


def understand_a_refusal(page: Any) -> None:
    page.locator("#mission-timeline").get_by_role("link", name="git__git_reset").click()
    page.get_by_role("heading", name="What the agent was told").wait_for()
    page.get_by_text("This mission may not use git__git_reset").first.wait_for()
    assert page.locator(".remedies li").first.inner_text()
    ladder = page.locator(".ladder").first
    refused = ladder.locator("li.deny")
    assert refused.count() == 1
    assert "git__git_reset" in refused.inner_text()
    page.get_by_text("nothing charged").wait_for()
    look(page, "product-refusal")


def ask_for_budget(page: Any) -> None:
    page.get_by_role("link", name="Ask for budget").click()
    page.get_by_label("How much more").fill("1.50")
    page.get_by_label("Why").fill("The auditors want a second branch.")
    page.get_by_text("It waits for Dana").wait_for()
    look(page, "product-ask-budget")
    page.get_by_role("button", name="Ask for it").click()
    page.get_by_text("Waits for Dana").first.wait_for()
    look(page, "product-budget-asked")


def grant_budget(page: Any) -> None:
    page.get_by_role("link", name="Approvals").first.click()
    page.locator("#approvals-inbox").get_by_role("link", name=TITLE).first.click()
    card = page.locator("#approval-card")
    card.get_by_text("The auditors want a second branch.").first.wait_for()
    card.get_by_text("$3.50").first.wait_for()
    look(page, "product-budget-question")
    card.get_by_role("button", name="Approve once").click()
    page.get_by_text("Approved once").wait_for()


def outcome_of(remit: Installation, mission: str) -> str:
    return remit.shell(
        "from agents.models import Mission; "
        f"mission = Mission.objects.get(pk={mission.rsplit('/', 1)[-1]!r}); print(mission.state, mission.outcome)"
    )
