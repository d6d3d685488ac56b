"""Changing a remit from a form that is older than it: mine is what I touched, the rest follows what is in force."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agents import services as agents
from agents.grants import Grant
from agents.remits import remit_of
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.models import Escalation
from governance.types import Proposal

from .remit_page import Page, SignIn, number_of_versions

Theirs = Callable[..., None]


@pytest.fixture
def theirs(world: Any, as_nadia: Principal) -> Theirs:
    """Nadia changes the remit in force: its grants by a function, other parts by name."""

    def change(grants: Callable[[list[Grant]], list[Grant]] | None = None, **parts: Any) -> None:
        world.mission.refresh_from_db()
        latest = world.mission.versions.order_by("-number")[0]
        remit = replace(remit_of(latest), **parts)
        if grants is not None:
            remit = replace(remit, grants=grants(list(remit.grants)))
        agents.change_mission(
            actor=as_nadia, mission_id=world.mission.pk, remit=remit, note="Month end", expected_version=latest.number
        )

    return change


def credit(world: Any) -> int:
    """Which grant is the one with limits on the amount of a credit, that lets the call happen alone."""
    grants = remit_of(world.mission.versions.get(number=1)).grants
    return next(i for i, g in enumerate(grants) if g.effect == "allow" and "max" in g.constraints.get("amount", {}))


def narrowed(index: int, most: str = "50.00") -> Callable[[list[Grant]], list[Grant]]:
    def narrow(grants: list[Grant]) -> list[Grant]:
        old = grants[index]
        amount = {**old.constraints["amount"], "max": most}
        grants[index] = replace(old, constraints={**old.constraints, "amount": amount})
        return grants

    return narrow


def most_of(world: Any, number: int, index: int) -> Any:
    return remit_of(world.mission.versions.get(number=number)).grants[index].constraints["amount"]["max"]


def test_a_grant_that_i_left_alone_stays_as_somebody_narrowed_it(opened: Page, world: Any, theirs: Theirs) -> None:
    index = credit(world)
    theirs(narrowed(index))
    opened.preview(budget="1.50")
    assert opened.status == 412
    assert "Nadia made version 2" in opened.words
    assert "What you left alone follows what is in force now." in opened.words
    assert "You both changed" not in opened.words
    mine = opened.words.split("What yours would change now")[1].split("It counts at once.")[0]
    assert "Narrows The budget is 1.50 USD" in mine
    assert "Widens" not in mine
    opened.send()
    assert opened.status == 302
    assert most_of(world, 3, index) == "50.00"
    assert world.mission.versions.get(number=3).budget_money == 1.5


def test_what_both_changed_is_mine_until_i_leave_it_to_them(opened: Page, world: Any, theirs: Theirs) -> None:
    index = credit(world)
    theirs(narrowed(index), budget_money=1.2)
    rules = [name for name, value in opened.fields.items() if name.startswith(f"g{index}-r") and value == "100.00"]
    opened.preview(budget="1.90", **{rules[0]: "80.00"})
    assert "You both changed" in opened.words
    assert "Budget : leave it as it is in force In force: 1.20 Yours: 1.90" in opened.words
    assert opened.fields["budget"] == "1.90"
    assert opened.fields[rules[0]] == "80.00"
    assert f'name="theirs" value="grant-{index}"' in opened.html
    assert opened.send(theirs=f"grant-{index}").status == 409  # nothing goes that was not previewed
    assert number_of_versions(world) == 2
    assert opened.fields[rules[0]] == "50.00"
    assert opened.send().status == 302
    assert most_of(world, 3, index) == "50.00"
    assert str(world.mission.versions.get(number=3).budget_money).startswith("1.9")


def sign_off(as_dana: Principal) -> None:
    question = Escalation.objects.get(kind="mission.widen", state="open")
    governance.decide(approver=as_dana, escalation_id=question.pk, version=question.version, approve=True, reason="")


def test_grants_that_came_and_went_meanwhile_stay_so(
    opened: Page, world: Any, theirs: Theirs, as_dana: Principal
) -> None:
    added = Grant(tool="books__invoice", effect="escalate", sentence="Look at one invoice")
    count = int(opened.fields["grants"])
    theirs(lambda grants: [*grants[1:], added])
    sign_off(as_dana)
    opened.preview(**{f"g{count - 1}-sentence": "In other words", "importance": "high"})
    assert opened.status == 412
    assert opened.send().status == 302
    made = remit_of(world.mission.versions.get(number=3)).grants
    before = remit_of(world.mission.versions.get(number=2)).grants
    assert len(made) == count
    assert [grant for grant in made if grant.sentence != "In other words"] == [*before[:-2], before[-1]]


def test_a_grant_that_they_took_away_and_i_changed_is_shown_to_choose(opened: Page, world: Any, theirs: Theirs) -> None:
    theirs(lambda grants: grants[1:])
    opened.preview(g0__sentence="In other words")
    assert "In force: Taken away" in opened.words
    last = int(opened.fields["grants"]) - 1
    assert opened.fields[f"g{last}-sentence"] == "In other words"
    opened.preview(theirs=f"grant-{last}")
    assert "Nothing would change: this is how version 2 stands." in opened.words


def test_another_button_of_an_old_form_hides_nothing(opened: Page, world: Any, theirs: Theirs) -> None:
    index = credit(world)
    theirs(narrowed(index))
    rules = int(opened.fields[f"g{index}-rules"])
    opened.press(f"add-limit-{index}")
    assert "Nadia made version 2" in opened.words
    assert opened.fields[f"g{index}-rules"] == str(rules + 1)
    opened.preview()
    assert "Nothing would change: this is how version 2 stands." in opened.words


def test_a_version_that_was_signed_off_meanwhile_is_not_set_back(
    opened: Page, world: Any, alice: User, as_dana: Principal, signed_in: SignIn
) -> None:
    opened.preview(goal="Only the oldest twenty").send()
    page = Page(signed_in(alice), world.mission).open()
    sign_off(as_dana)
    page.preview(budget="1.50")
    assert page.status == 412
    assert page.fields["goal"] == "Only the oldest twenty"
    assert page.send().status == 302
    made = world.mission.versions.get(number=3)
    assert (made.goal, made.budget_money) == ("Only the oldest twenty", 1.5)


def test_money_given_while_the_form_was_open_is_not_taken_back(opened: Page, world: Any, as_dana: Principal) -> None:
    arguments = {"money": "5.00", "reason": "", "account_id": str(world.account_of("mission", world.mission.pk))}
    asked = governance.propose(proposer=world.owner, proposal=Proposal(kind="budget.topup", arguments=arguments))
    assert asked.escalation is not None
    governance.decide(approver=as_dana, escalation_id=asked.escalation.id, version=1, approve=True, reason="")
    opened.preview(g0__removed="on")
    assert opened.fields["budget"] == "7.00"
    assert "The budget is" not in opened.words
