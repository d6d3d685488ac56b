"""An open question whose mission or tool is not what was judged any more: said before anybody answers, and after."""

from __future__ import annotations

from dataclasses import replace
from html import unescape
from typing import Any

from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.models import McpTool
from controlplane.common.canonical import digest
from controlplane.tenancy.models import User
from governance.choices import ActionState
from governance.models import Action, Escalation

from .browsing import SignIn

REMIT = "The mission's remit has changed since this was judged."
TOOL = "The tool's definition has changed since this was judged."


def page(browser: Client, path: str) -> str:
    response = browser.get(path)
    assert response.status_code == 200, path
    return unescape(response.content.decode())


def change_remit(world: Any) -> None:
    """In force at once, as it only narrows; what waits is granted as before."""
    kept = tuple(grant for grant in world.plain_remit().grants if grant.tool != "books__overdue")
    version = world.mission.versions.get()
    narrower = replace(world.plain_remit(), grants=list(kept), deadline=version.deadline)
    agents.change_mission(
        actor=world.owner, mission_id=world.mission.pk, remit=narrower, note="No lists", expected_version=1
    )
    world.mission.refresh_from_db()
    assert world.mission.version == 2


def approve(browser: Client, escalation: Escalation) -> Escalation:
    path = reverse("approval-decide", args=[escalation.pk])
    assert browser.post(path, {"answer": "approve", "version": str(escalation.version)}).status_code == 302
    escalation.refresh_from_db()
    return escalation


def test_a_changed_remit_is_said_on_the_card_before_anybody_answers(world: Any, bob: User, signed_in: SignIn) -> None:
    escalation, browser = world.ask_credit(), signed_in(bob)
    address = reverse("approval", args=[escalation.pk])
    assert "changed-since" not in page(browser, address)
    change_remit(world)
    shown = page(browser, address)
    assert f"{REMIT} An approval can't permit it any more. The agent has to ask again." in shown
    assert TOOL not in shown


def test_a_pause_is_said_on_the_card_before_anybody_answers_and_no_more_once_it_goes_on(
    world: Any, bob: User, signed_in: SignIn
) -> None:
    first, second, browser = world.ask_credit(), world.ask_credit(key="second"), signed_in(bob)
    address = reverse("approval", args=[first.pk])
    assert "The mission is paused." not in page(browser, address)
    agents.pause_mission(actor=world.owner, mission_id=world.mission.pk)
    said = "The mission is paused. Approved before it is resumed, this permits nothing: the agent has to ask again."
    assert said in page(browser, address)
    assert approve(browser, second).state == "superseded"
    assert Action.objects.get(pk=second.action_id).reason_code == "mission.not_active"
    agents.resume_mission(actor=world.owner, mission_id=world.mission.pk)
    assert "The mission is paused." not in page(browser, address)
    assert approve(browser, first).state == "approved"


def test_an_approval_after_the_remit_changed_says_so_and_blames_no_rule(
    world: Any, bob: User, alice: User, signed_in: SignIn
) -> None:
    escalation, browser = world.ask_credit(), signed_in(bob)
    change_remit(world)
    approve(browser, escalation)
    action = Action.objects.get(pk=escalation.action_id)
    assert (escalation.state, action.state, action.reason_code) == ("superseded", ActionState.DENIED, "action.changed")
    told = page(browser, reverse("approvals"))
    assert f"But nothing was done: no rule refuses it. {REMIT} The agent has to ask again." in told
    assert "refused by now" not in told
    assert REMIT in page(browser, f"{reverse('approvals')}?tab=decided")
    decided = page(browser, reverse("approval", args=[escalation.pk]))
    assert "Bob approved" in decided
    assert "changed-since" not in decided
    assert decided.count(REMIT) == 2  # in its row, and on its card
    story = page(signed_in(alice), reverse("mission", args=[world.mission.pk]))
    assert REMIT in story
    assert "Superseded by" not in story


def test_a_changed_tool_is_said_on_the_card_and_after_the_answer(world: Any, bob: User, signed_in: SignIn) -> None:
    escalation, browser = world.ask_credit(), signed_in(bob)
    tool = McpTool.objects.get(qualified_name="books__apply_credit")
    other = {**tool.definition, "description": "Gives a credit to anybody"}
    McpTool.objects.filter(pk=tool.pk).update(definition=other, definition_sha256=digest(other))
    shown = page(browser, reverse("approval", args=[escalation.pk]))
    assert f"{TOOL} An approval can't permit it any more." in shown
    assert REMIT not in shown
    assert approve(browser, escalation).reason == TOOL
