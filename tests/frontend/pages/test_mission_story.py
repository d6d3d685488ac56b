"""The timeline on a mission's page: what failed, what ran once a person had agreed, and budget that was asked for."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse

from agents import services as agents
from agents.choices import StopScope
from controlplane.common.clock import now
from controlplane.common.ids import new_id
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.models import Action, Escalation

from .browsing import SignIn, page


def story(html: str) -> list[str]:
    """Its lines as read out: what the icon says, the words, the money."""
    items = html.split('id="timeline-items"')[1].split("</ol>")[0]
    lines = re.split(r"<li[ >]", items)[1:]
    spoken = (re.sub(r'<svg[^>]*aria-label="([^"]*)"[^>]*>', r" [\1] ", line) for line in lines)
    return [" ".join(re.sub(r"<[^>]+>|^[^<]*>", " ", line).split()) for line in spoken]


def test_a_call_that_failed_does_not_look_like_a_refusal(world: Any, alice: User, signed_in: SignIn) -> None:
    world.act("books__overdue", "no such book", outcome="failure")
    world.act("sqlite__write_query", query="DROP TABLE customers")
    html = page(signed_in(alice), reverse("mission", args=[world.mission.pk]))
    _, failed, refused = story(html)[-3:]
    assert "[Failed] books__overdue" in failed
    assert "Failed: no such book" in failed
    assert "[Refused] sqlite__write_query" in refused
    items = html.split('id="timeline-items"')[1].split("</ol>")[0]
    assert items.count("#i-deny") == items.count('class="dot deny"') == 1


def test_pauses_stand_in_the_story_with_who_and_why(world: Any, alice: User, signed_in: SignIn) -> None:
    world.act("books__overdue", "")
    mission = world.mission.pk
    agents.pause_mission(actor=world.owner, mission_id=mission, reason="Quarter end")
    agents.resume_mission(actor=world.owner, mission_id=mission)
    agents.stop(actor=world.owner, scope=StopScope.AGENT, scope_id=world.agent.pk, reason="It repeats itself")
    browser = signed_in(alice)
    lines = story(page(browser, reverse("mission", args=[mission])))
    paused, resumed, stopped = (line for line in lines if "Paused" in line or "Resumed" in line)
    assert paused.endswith("Paused By Alice: Quarter end")
    assert resumed.endswith("Resumed By Alice")
    assert f"Paused By the stop of the agent {world.agent.name}" in stopped
    assert "It repeats itself" in stopped
    refused = page(browser, reverse("mission", args=[mission]) + "?verdict=allowed")
    assert "Quarter end" not in refused.split('id="timeline-items"')[1].split("</ol>")[0]


def test_what_went_wrong_with_a_server_is_read_in_words(
    world: Any, alice: User, nadia: User, signed_in: SignIn
) -> None:
    action = world.begin("books__overdue").started
    error = "upstream.backing_off: It failed just before and is tried again in a moment."
    governance.record_outcome_of(holder=world.as_run, started=action, outcome="failure", error=error)
    mission, call = reverse("mission", args=[world.mission.pk]), reverse("action", args=[action.pk])
    assert "Failed: It failed just before and is tried again in a moment." in story(page(signed_in(alice), mission))[-1]
    pages = [page(signed_in(alice), mission), page(signed_in(alice), call), page(signed_in(nadia), reverse("audit"))]
    assert all("It failed just before" in shown and "upstream." not in shown for shown in pages)
    action.refresh_from_db()
    assert action.outcome["error"] == error  # programs still get the code


def test_what_ran_after_an_approval_stands_after_it_with_its_cost(
    world: Any, as_bob: Principal, alice: User, signed_in: SignIn
) -> None:
    question = world.ask_credit()
    world.act("books__overdue", "31 invoices")
    before = Action.objects.get(tool="books__overdue").cost
    governance.decide(approver=as_bob, escalation_id=question.pk, version=1, approve=True, reason="Agreed")
    browser, address = signed_in(alice), reverse("mission", args=[world.mission.pk])
    asked = next(line for line in story(page(browser, address)) if "books__apply_credit" in line)
    assert "held" in asked
    governance.redeem(holder=world.as_run, action_id=question.action_id, audience="mcp")
    governance.record_outcome(
        holder=world.as_run,
        action_id=question.action_id,
        audience="mcp",
        outcome="success",
        summary="Credit note CN-0007",
    )
    asked, read, approved, ran = story(page(browser, address))[-4:]
    assert "[Asks a person] books__apply_credit" in asked
    assert "$" not in asked.split("240.00")[1]
    assert f"spent so far ${before:.2f}" in read
    assert "Approved by Bob" in approved
    assert "[Done] books__apply_credit ran Credit note CN-0007" in ran
    spent = Action.objects.get(pk=question.action_id).cost
    assert spent
    assert f"spent so far ${before + spent:.2f}" in ran


def test_budget_that_was_asked_for_is_part_of_the_story_and_of_the_words(
    world: Any, as_bob: Principal, alice: User, signed_in: SignIn
) -> None:
    browser, address = signed_in(alice), reverse("mission", args=[world.mission.pk])
    assert "At most $2.00, 250 steps, 10,000 tokens." in words(page(browser, address))
    agents.ask_for_budget(
        actor=world.owner, mission_id=world.mission.pk, money="1.00", reason="Twelve more", key=new_id()
    )
    asked, waits = story(page(browser, address))[-2:]
    assert "$1.00 more for" in asked
    assert "asked for by Alice: Twelve more" in asked
    assert "Waits for Bob" in waits
    governance.decide(
        approver=as_bob, escalation_id=Escalation.objects.get().pk, version=1, approve=True, reason="Go on"
    )
    html = page(browser, address)
    assert "Approved by Bob" in story(html)[-1]
    assert "At most $2.00, raised to $3.00, 250 steps, 10,000 tokens." in words(html)
    assert "All 0" in html  # requests are no calls


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", "", html.split("Remit in words")[1].split("</section>")[0]).split())


def test_an_ended_mission_does_not_say_when_it_would_end(world: Any, alice: User, signed_in: SignIn) -> None:
    browser, address = signed_in(alice), reverse("mission-tab", args=[world.mission.pk, "remit"])
    assert "<dt>Ends</dt>" in page(browser, address)
    agents.stop(actor=world.owner, scope=StopScope.MISSION, scope_id=world.mission.pk, reason="Look first")
    assert re.search(r"<dt>Ended</dt><dd><time[^>]*>now<", page(browser, address))
    assert "<dt>Ends</dt>" not in page(browser, address)


@pytest.mark.parametrize("how", ["taken back", "lapsed"])
def test_what_was_approved_and_never_carried_out_is_told_with_the_money_that_was_released(
    world: Any, as_bob: Principal, alice: User, signed_in: SignIn, how: str
) -> None:
    question = world.ask_credit()
    governance.decide(approver=as_bob, escalation_id=question.pk, version=1, approve=True, reason="Agreed")
    if how == "taken back":
        governance.withdraw(actor=world.owner, action_id=question.action_id, reason="The run ended")
    else:
        Action.objects.filter(pk=question.action_id).update(decided_at=now() - timedelta(hours=25))
        governance.sweep()
    browser = signed_in(alice)
    asked, approved, unused = story(page(browser, reverse("mission", args=[world.mission.pk])))[-3:]
    assert "[Asks a person] books__apply_credit" in asked
    assert "$" not in asked.split("240.00")[1]
    assert "Approved by Bob" in approved
    assert "books__apply_credit was approved and never carried out" in unused
    why = "The run ended." if how == "taken back" else "Nothing was done."
    assert f"{why} What was held for it was released. $0.00" in unused
    detail = page(browser, reverse("action", args=[question.action_id]))
    assert "Approved, and never carried out." in detail
    assert re.search(r"What the agent was told</h2><span[^>]*>.*?</svg>(Withdrawn|Lapsed|Expired)", detail)


def test_what_was_taken_back_before_anybody_answered_is_not_told_as_approved(
    world: Any, alice: User, signed_in: SignIn
) -> None:
    question = world.ask_credit()
    governance.withdraw(actor=world.owner, action_id=question.action_id, reason="Not needed")
    browser = signed_in(alice)
    assert "never carried out" not in page(browser, reverse("mission", args=[world.mission.pk]))
    assert "never carried out" not in page(browser, reverse("action", args=[question.action_id]))


def test_a_last_action_that_failed_is_a_call_by_name_and_says_that_it_failed(
    world: Any, alice: User, signed_in: SignIn
) -> None:
    world.act("books__overdue", "no such book", outcome="failure")
    for address in (reverse("home"), reverse("missions")):
        html = page(signed_in(alice), address)
        cell = html.split("<code>books__overdue</code>")[1].split("</td>")[0]
        assert " ".join(re.sub(r"<[^>]+>", " ", cell).split()).startswith("Failed"), address
        assert "Overdue" not in re.sub(r"<[^>]+>", " ", html), address


def test_who_sees_no_approvals_is_led_to_none(world: Any, alice: User, finn: User, signed_in: SignIn) -> None:
    question = world.ask_credit()
    link = reverse("approval", args=[question.pk])
    for address in (reverse("mission", args=[world.mission.pk]), reverse("action", args=[question.action_id])):
        assert link in page(signed_in(alice), address)
        assert link not in page(signed_in(finn), address)
    assert signed_in(finn).get(link).status_code == 404


def test_who_refused_is_named_and_not_who_had_agreed(
    world: Any, as_nadia: Principal, as_bob: Principal, as_dana: Principal, alice: User, signed_in: SignIn
) -> None:
    governance.save_route(actor=as_nadia, route=governance.Route(name="Two", kind="tool.call", needed=2))
    question = world.ask_credit()
    governance.decide(approver=as_dana, escalation_id=question.pk, version=1, approve=True, reason="Late indeed")
    governance.decide(approver=as_bob, escalation_id=question.pk, version=2, approve=False, reason="No ticket")
    refused = story(page(signed_in(alice), reverse("mission", args=[world.mission.pk])))[-1]
    assert "Refused by Bob" in refused
    assert "No ticket" in refused
    assert "Dana" not in refused
    assert "Late indeed" not in refused
