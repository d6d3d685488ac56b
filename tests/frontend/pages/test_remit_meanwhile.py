"""Changing a remit while others do something too: nothing unseen is sent or lost, nothing old is signed off."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

from agents import services as agents
from agents.models import Mission, MissionVersion
from budgets import selectors as budgets
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.models import Escalation
from governance.types import Proposal

from .remit_page import Page, SignIn, number_of_versions


def test_nothing_is_sent_that_was_not_previewed(opened: Page, world: Any) -> None:
    opened.send(budget="1.00")
    assert opened.status == 409
    opened.preview(budget="1.50")
    opened.send(budget="1.00")
    assert opened.status == 409
    assert "You changed something after the last preview." in opened.html
    assert "The budget is 1.00 USD" in opened.words
    assert number_of_versions(world) == 1
    opened.send()
    assert number_of_versions(world) == 2


def test_whoever_comes_second_sees_both_and_loses_nothing(
    opened: Page, world: Any, as_nadia: Principal, make_remit: Callable[..., Any]
) -> None:
    deadline = world.mission.versions.get().deadline
    opened.preview(goal="Only the oldest twenty", budget="1.90")
    agents.change_mission(
        actor=as_nadia,
        mission_id=world.mission.pk,
        remit=replace(make_remit(budget="1.20"), deadline=deadline),
        note="Month end",
        expected_version=1,
    )
    opened.send()
    assert opened.status == 412
    assert "Nadia made version 2" in opened.words
    assert "Month end" in opened.words
    assert "Narrows The budget is 1.20 USD, was 2.00 USD" in opened.words
    assert "Widens The budget is 1.90 USD, was 1.20 USD" in opened.words
    assert opened.fields["goal"] == "Only the oldest twenty"
    assert number_of_versions(world) == 2
    opened.send()
    assert opened.status == 302
    assert world.mission.versions.get(number=3).goal == "Only the oldest twenty"


def test_more_given_on_request_is_not_taken_back_by_an_unrelated_change(
    world: Any, alice: User, as_dana: Principal, signed_in: SignIn
) -> None:
    account = world.account_of("mission", world.mission.pk)
    arguments = {"money": "5.00", "reason": "", "account_id": str(account)}
    asked = governance.propose(proposer=world.owner, proposal=Proposal(kind="budget.topup", arguments=arguments))
    assert asked.escalation is not None
    governance.decide(approver=as_dana, escalation_id=asked.escalation.id, version=1, approve=True, reason="")
    page = Page(signed_in(alice), world.mission).open()
    assert page.fields["budget"] == "7.00"
    page.preview(g0__removed="on")
    assert "It counts at once." in page.words
    page.send(g0__removed="on")
    assert budgets.mission_spend(mission_ids=[world.mission.pk])[world.mission.pk].limits.money == Decimal(7)


def test_a_change_that_still_waits_is_replaced_by_the_next(
    opened: Page, world: Any, alice: User, signed_in: SignIn
) -> None:
    opened.preview(budget="3.00").send()
    page = Page(signed_in(alice), world.mission).open()
    assert "Version 2 by Alice still waits for sign-off." in page.words
    page.preview(budget="4.00").send()
    states = dict(MissionVersion.objects.filter(mission=world.mission).values_list("number", "state"))
    assert states == {1: "active", 2: "superseded", 3: "awaiting_sign_off"}
    assert list(Escalation.objects.order_by("id").values_list("state", flat=True)) == ["withdrawn", "open"]


def test_rewording_what_waits_for_sign_off_withdraws_the_question(
    world: Any, alice: User, as_dana: Principal, signed_in: SignIn
) -> None:
    mission = world.draft("Large", budget="50.00")
    agents.submit_mission(actor=world.owner, mission_id=mission.pk)
    page = Page(signed_in(alice), mission).open()
    assert "start the mission again afterwards" in page.words
    page.preview(budget="900.00").send()
    mission.refresh_from_db()
    assert (mission.state, mission.version) == ("draft", 2)
    question = Escalation.objects.get(kind="mission.sign_off")
    assert question.state == "withdrawn"
    again = agents.submit_mission(actor=world.owner, mission_id=mission.pk)
    assert again.state == "waiting"


def test_an_old_sign_off_never_starts_another_wording(
    world: Any, as_dana: Principal, make_remit: Callable[..., Any]
) -> None:
    """Even if the question about the first wording were still open."""
    mission = world.draft("Large", budget="50.00")
    judgement = agents.submit_mission(actor=world.owner, mission_id=mission.pk)
    assert judgement.escalation is not None
    version = mission.versions.get()
    MissionVersion.objects.filter(pk=version.pk).update(number=7)
    version.pk = None
    version.id = MissionVersion().id
    version.number, version.budget_money = 2, Decimal(900)
    version.save(force_insert=True)
    MissionVersion.objects.filter(mission=mission, number=7).update(number=1)
    Mission.objects.filter(pk=mission.pk).update(version=2)
    decided = governance.decide(
        approver=as_dana, escalation_id=judgement.escalation.id, version=1, approve=True, reason=""
    )
    mission.refresh_from_db()
    assert decided.state == "superseded"
    assert mission.state != "active"
