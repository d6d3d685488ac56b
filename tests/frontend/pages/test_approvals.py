"""Deciding: what the card says, who may answer, races, deadlines, and all kinds of questions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from html import unescape
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.choices import MissionState
from agents.models import McpTool, Mission
from controlplane.common.clock import now
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.choices import ActionState, EscalationState
from governance.models import Action, Escalation, Vote
from governance.types import Proposal

SignIn = Callable[..., Client]


def answer(browser: Client, escalation: Escalation, what: str, *, version: int = 1, **body: str) -> Any:
    path = reverse("approval-decide", args=[escalation.pk])
    return browser.post(path, {"answer": what, "version": str(version), **body})


def page(browser: Client, path: str) -> str:
    response = browser.get(path)
    assert response.status_code == 200, path
    return str(response.content.decode())


def test_the_card_says_what_is_asked_why_and_what_the_mission_allows(world: Any, bob: User, signed_in: SignIn) -> None:
    world.ask_credit("240.00", "Delivered 9 days late")
    html = page(signed_in(bob), reverse("approvals"))
    assert "Chase overdue invoices" in html
    assert "Credit up to 500.00 EUR on an invoice once a person agrees" in html
    assert '<tr class="over"><th scope="row"><bdi>amount</bdi></th>' in html
    assert "0.01 to 100.00 alone; 0.01 to 500.00 with a person" in html
    assert "It can be undone." in html
    assert "Nobody has decided one like it yet." in html


def test_approving_permits_exactly_this_once(world: Any, bob: User, signed_in: SignIn) -> None:
    escalation = world.ask_credit()
    response = answer(signed_in(bob), escalation, "approve")
    assert response.status_code == 302
    escalation.refresh_from_db()
    assert escalation.state == EscalationState.APPROVED
    assert Action.objects.get(pk=escalation.action_id).state == ActionState.PERMITTED
    assert Vote.objects.get().user == bob


def test_pages_and_programs_are_told_in_whose_place_somebody_answered(
    world: Any, bob: User, dana: User, as_nadia: Principal, signed_in: SignIn
) -> None:
    group = governance.save_group(actor=as_nadia, name="Directors", member_ids=[dana.pk])
    governance.save_route(actor=as_nadia, route=governance.Route(name="All", group_id=group.pk))
    begin, end = now() - timedelta(minutes=1), now() + timedelta(days=1)
    governance.delegate(actor=as_nadia, from_user_id=dana.pk, to_user_id=bob.pk, starts_at=begin, ends_at=end)
    escalation, browser = world.ask_credit(), signed_in(bob)
    assert answer(browser, escalation, "approve").status_code == 302
    for path in (reverse("approval", args=[escalation.pk]), reverse("action", args=[escalation.action_id])):
        assert "approved in the place of Dana" in page(browser, path)
    (vote,) = browser.get(f"/api/v1/escalations/{escalation.pk}").json()["votes"]
    assert (vote["user_id"], vote["for_user_id"]) == (str(bob.pk), str(dana.pk))


def asks_twice(world: Any, *, times: int = 1) -> list[Escalation]:
    """Credits that wait for a person, while the run has done what another rule asks about."""
    McpTool.objects.filter(qualified_name="books__apply_credit").update(effects=["egress"])
    McpTool.objects.filter(qualified_name="books__overdue").update(effects=["secret.read"])
    rows = [world.ask_credit(key=f"credit-{number}") for number in range(times)]
    world.act("books__overdue")
    return rows


def test_an_approval_after_which_another_rule_asks_says_so(world: Any, bob: User, signed_in: SignIn) -> None:
    (escalation,) = asks_twice(world)
    browser = signed_in(bob)
    answer(browser, escalation, "approve")
    escalation.refresh_from_db()
    assert escalation.state == EscalationState.SUPERSEDED
    html = page(browser, reverse("approvals"))
    assert "Another rule asks as well by now, so it waits as a new question." in html
    assert "refuse" not in html.partition("Another rule asks")[0].rpartition("Your approval")[2]
    answer(browser, Escalation.objects.get(state=EscalationState.OPEN), "approve")
    assert "Approved once: " in page(browser, reverse("approvals"))
    assert Action.objects.get(pk=escalation.action_id).state == ActionState.PERMITTED


def test_an_approval_that_rules_overtook_says_that_they_refuse(
    world: Any, bob: User, alice: User, signed_in: SignIn
) -> None:
    escalation = world.ask_credit()
    McpTool.objects.filter(qualified_name="books__apply_credit").update(state="quarantined")
    browser = signed_in(bob)
    answer(browser, escalation, "approve")
    action = Action.objects.get(pk=escalation.action_id)
    assert action.state == ActionState.DENIED
    said = f"But nothing was done. It is refused by now: {action.message.removeprefix('Not sent. ')}"
    assert said in unescape(page(browser, reverse("approvals")))


def test_of_many_approvals_those_that_did_not_settle_it_are_told_apart(
    world: Any, bob: User, signed_in: SignIn
) -> None:
    rows = asks_twice(world, times=2)
    browser = signed_in(bob)
    browser.post(reverse("approvals-decide"), {"answer": "approve", "row": [f"{row.pk}:1" for row in rows]})
    html = page(browser, reverse("approvals"))
    assert "2 of 2 answered" not in html
    assert "2 approvals counted and did not settle it. Another rule asks as well by now, so it waits as a new" in html
    assert "refused by now" not in html
    assert Escalation.objects.filter(state=EscalationState.OPEN).count() == 2


@pytest.mark.parametrize(("choice", "word"), [("approve", "approval"), ("deny", "refusal")])
def test_the_same_answer_again_leads_back_with_a_word_and_another_is_refused(
    world: Any, bob: User, signed_in: SignIn, choice: str, word: str
) -> None:
    escalation = world.ask_credit()
    browser = signed_in(bob)
    answer(browser, escalation, choice, reason="So it is")
    page(browser, reverse("approvals"))
    again = answer(browser, escalation, choice, reason="So it is")
    assert (again.status_code, again["Location"]) == (302, reverse("approvals"))
    assert f"Your {word} counts already. Nothing was done twice." in page(browser, reverse("approvals"))
    other = answer(browser, escalation, "deny" if choice == "approve" else "approve", reason="No")
    assert other.status_code == 409
    assert f"Your {word} counts already. It can&#x27;t be changed." in other.content.decode()
    assert Vote.objects.count() == 1


def test_refusing_what_a_person_asked_for_speaks_of_that_person_and_of_no_agent(
    world: Any, dana: User, as_alice: Principal, signed_in: SignIn
) -> None:
    arguments = {"money": "5.00", "account_id": str(world.account_of("mission", world.mission.pk))}
    judgement = governance.propose(proposer=as_alice, proposal=Proposal(kind="budget.topup", arguments=arguments))
    assert judgement.escalation is not None
    browser = signed_in(dana)
    card = page(browser, reverse("approval", args=[judgement.escalation.id]))
    assert "Nothing is done, and Alice is told your reason." in card
    assert "One sentence; Alice reads it." in card
    assert "the agent is told" not in card
    answer(browser, Escalation.objects.get(pk=judgement.escalation.id), "deny", reason="Not this month")
    html = page(browser, reverse("approvals"))
    assert "Refused: $5.00 more for “Chase overdue invoices”. Alice was told why." in html


def test_refusing_a_start_that_a_person_asked_for_names_that_person_though_it_is_about_an_agent(
    world: Any, dana: User, as_alice: Principal, signed_in: SignIn
) -> None:
    mission = world.draft("Costly", budget="60.00")
    agents.submit_mission(actor=as_alice, mission_id=mission.pk)
    question = Escalation.objects.get(kind="mission.sign_off")
    card = page(signed_in(dana), reverse("approval", args=[question.pk]))
    assert "Nothing is done, and Alice is told your reason." in card
    assert "One sentence; Alice reads it." in card


def test_refusing_a_call_says_that_its_agent_and_the_owner_read_why(world: Any, bob: User, signed_in: SignIn) -> None:
    card = page(signed_in(bob), reverse("approval", args=[world.ask_credit().pk]))
    assert "One sentence; the agent and the owner read it." in card


def test_where_too_few_can_answer_the_card_the_lists_and_the_thanks_say_the_same(
    world: Any, alice: User, bob: User, as_nadia: Principal, signed_in: SignIn
) -> None:
    governance.save_route(actor=as_nadia, route=governance.Route(name="Five", kind="tool.call", needed=5))
    escalation = world.ask_credit()
    mission = reverse("mission", args=[world.mission.pk])
    for address in (mission, reverse("missions"), reverse("home")):
        assert "Waits for approvers who are missing" in page(signed_in(alice), address), address
    browser = signed_in(bob)
    assert "Nobody can settle this as things are." in page(browser, reverse("approval", args=[escalation.pk]))
    assert answer(browser, escalation, "approve").status_code == 302
    html = page(browser, reverse("approvals"))
    assert "Your approval counts. Nobody can settle it as things are: too few people are left" in html
    card = page(browser, reverse("approval", args=[escalation.pk]))
    assert "You have answered. Nobody can settle it as things are" in card
    assert "waits for" not in card.lower()


def test_a_refusal_needs_a_reason_and_keeps_the_question_open(world: Any, bob: User, signed_in: SignIn) -> None:
    escalation = world.ask_credit()
    response = answer(signed_in(bob), escalation, "deny", reason="  ")
    assert response.status_code == 422
    assert "A refusal needs a reason." in response.content.decode()
    escalation.refresh_from_db()
    assert escalation.state == EscalationState.OPEN
    assert answer(signed_in(bob), escalation, "deny", reason="No ticket").status_code == 302
    assert "A person refused this: No ticket" in Action.objects.get(pk=escalation.action_id).message


@pytest.mark.parametrize(
    "body", [{}, {"answer": "approve"}, {"answer": "yes", "version": "1"}, {"answer": "approve", "version": "1; DROP"}]
)
def test_an_answer_that_is_none_decides_nothing(world: Any, bob: User, signed_in: SignIn, body: dict[str, str]) -> None:
    escalation = world.ask_credit()
    response = signed_in(bob).post(reverse("approval-decide", args=[escalation.pk]), body)
    assert response.status_code == 422
    assert Vote.objects.count() == 0


def test_the_loser_of_a_race_sees_who_was_first(world: Any, bob: User, dana: User, signed_in: SignIn) -> None:
    escalation = world.ask_credit()
    assert answer(signed_in(bob), escalation, "approve").status_code == 302
    response = answer(signed_in(dana), escalation, "deny", reason="I would not")
    assert response.status_code == 409
    assert "Bob approved before you. Your answer was not counted." in response.content.decode()
    assert Vote.objects.count() == 1
    escalation.refresh_from_db()
    assert escalation.state == EscalationState.APPROVED


def test_a_stale_card_decides_nothing(world: Any, bob: User, signed_in: SignIn) -> None:
    escalation = world.ask_credit()
    Escalation.objects.filter(pk=escalation.pk).update(version=2)
    assert answer(signed_in(bob), escalation, "approve", version=1).status_code == 409
    assert Vote.objects.count() == 0


def test_a_question_whose_time_is_over_cannot_be_approved(world: Any, bob: User, signed_in: SignIn) -> None:
    escalation = world.ask_credit()
    Escalation.objects.filter(pk=escalation.pk).update(expires_at=now() - timedelta(seconds=1))
    assert answer(signed_in(bob), escalation, "approve").status_code == 409
    assert "Nothing waits for you" in page(signed_in(bob), reverse("approvals"))
    assert Action.objects.get(pk=escalation.action_id).state == ActionState.WAITING


def test_whoever_owns_the_mission_is_told_why_somebody_else_decides(
    world: Any, alice: User, dana: User, make_person: Any, signed_in: SignIn
) -> None:
    from controlplane.tenancy.models import Membership

    Membership.objects.create(organisation=world.organisation, user=alice, team=world.team, role="approver")
    escalation = world.ask_credit()
    browser = signed_in(alice)
    html = page(browser, reverse("approval", args=[escalation.pk]))
    assert "You own this mission, so somebody else must decide." in html
    assert "It waits for Dana." in html
    assert 'name="answer"' not in html
    assert answer(browser, escalation, "approve").status_code == 403
    assert Vote.objects.count() == 0


def test_viewers_see_the_question_and_no_buttons(world: Any, alice: User, signed_in: SignIn) -> None:
    escalation = world.ask_credit()
    html = page(signed_in(alice), reverse("approval", args=[escalation.pk]))
    assert "Your role sees approvals and does not decide them." in html
    assert 'name="answer"' not in html
    assert "Waiting for you" not in html


def test_what_was_said_before_of_the_same_tool_is_on_the_card(world: Any, bob: User, signed_in: SignIn) -> None:
    browser = signed_in(bob)
    answer(browser, world.ask_credit("150.00"), "approve")
    answer(browser, world.ask_credit("450.00"), "deny", reason="Too much at once")
    html = page(browser, reverse("approval", args=[world.ask_credit("300.00").pk]))
    assert "1 approved, 1 refused of the last 2 like it" in html
    assert "Too much at once" in html


def test_the_most_urgent_question_comes_first_and_opens(world: Any, bob: User, signed_in: SignIn) -> None:
    later, sooner = world.ask_credit("150.00"), world.ask_credit("160.00")
    Escalation.objects.filter(pk=sooner.pk).update(expires_at=now() + timedelta(minutes=3))
    html = page(signed_in(bob), reverse("approvals"))
    assert html.index(str(sooner.pk)) < html.index(str(later.pk))
    assert f'action="{reverse("approval-decide", args=[sooner.pk])}"' in html
    assert f'action="{reverse("approval-decide", args=[later.pk])}"' not in html


def test_keys_of_another_row_open_it_instead_of_deciding_this_one(world: Any, bob: User, signed_in: SignIn) -> None:
    first, second = world.ask_credit("150.00"), world.ask_credit("160.00")
    html = page(signed_in(bob), reverse("approval", args=[first.pk]))
    row = html.split(f'id="row-{second.pk}"')[1].split("</li>")[0]
    own = html.split(f'id="row-{first.pk}"')[1].split("</li>")[0]
    assert 'data-key="a d e c"' in row
    assert "data-key" not in own


def test_an_empty_inbox_shows_the_last_decisions(world: Any, bob: User, signed_in: SignIn) -> None:
    browser = signed_in(bob)
    answer(browser, world.ask_credit(), "deny", reason="No ticket")
    html = page(browser, reverse("approvals"))
    assert "Nothing waits for you" in html
    assert "No ticket" in html


def test_a_sign_off_shows_the_remit_in_words_and_starts_the_mission(world: Any, dana: User, signed_in: SignIn) -> None:
    mission = world.draft("Large credits", budget="50.00")
    agents.submit_mission(actor=world.owner, mission_id=mission.pk)
    escalation = Escalation.objects.get(kind="mission.sign_off")
    html = page(signed_in(dana), reverse("approval", args=[escalation.pk]))
    assert "$50.00" in html
    assert "Everything else" in html
    assert "List overdue invoices" in html
    assert "Each of them has one reminder in the outbox" in html
    assert answer(signed_in(dana), escalation, "approve").status_code == 302
    assert Mission.objects.get(pk=mission.pk).state == MissionState.ACTIVE


def test_a_widening_shows_what_would_change(
    world: Any, dana: User, signed_in: SignIn, make_remit: Callable[..., Any]
) -> None:
    agents.change_mission(
        actor=world.owner,
        mission_id=world.mission.pk,
        remit=replace(make_remit(), budget_money=Decimal("9.00")),
        note="More customers",
        expected_version=1,
    )
    escalation = Escalation.objects.get(kind="mission.widen")
    html = page(signed_in(dana), reverse("approval", args=[escalation.pk]))
    assert "<b>Widens</b> The budget is 9.00 USD, was 2.00 USD" in html
    assert "Alice wrote: More customers" in html
    assert answer(signed_in(dana), escalation, "approve").status_code == 302
    assert Mission.objects.get(pk=world.mission.pk).version == 2


def test_a_top_up_shows_the_money_before_and_after(
    world: Any, dana: User, as_alice: Principal, signed_in: SignIn
) -> None:
    account = world.account_of("mission", world.mission.pk)
    arguments = {"money": "5.00", "reason": "Twelve more customers", "account_id": str(account)}
    judgement = governance.propose(proposer=as_alice, proposal=Proposal(kind="budget.topup", arguments=arguments))
    assert judgement.escalation is not None, judgement
    html = page(signed_in(dana), reverse("approval", args=[judgement.escalation.id]))
    assert "Twelve more customers" in html
    assert "$5.00" in html
    assert "$7.00" in html  # 2.00 and 5.00 more
    escalation = Escalation.objects.get(pk=judgement.escalation.id)
    assert answer(signed_in(dana), escalation, "approve").status_code == 302
    assert "$7.00" in page(signed_in(dana), reverse("budget", args=[account]))


def test_a_title_writes_money_as_pages_do(
    world: Any, alice: User, dana: User, nadia: User, as_alice: Principal, signed_in: SignIn
) -> None:
    account = world.account_of("mission", world.mission.pk)
    for typed in ("1.000", "7", "0.0420"):
        arguments = {"money": typed, "account_id": str(account)}
        governance.propose(proposer=as_alice, proposal=Proposal(kind="budget.topup", arguments=arguments))
    for browser, address in ((signed_in(dana), reverse("approvals")), (signed_in(nadia), reverse("audit"))):
        html = page(browser, address)
        for written in ("$1.00 more for", "$7.00 more for", "$0.042 more for"):
            assert written in html, written
        assert "1.000 USD" not in html
    asked = page(signed_in(alice), reverse("mission-tab", args=[world.mission.pk, "budget"]))
    assert ">$1.00</data>" in asked


def test_the_count_beside_approvals_is_mine_alone(world: Any, bob: User, nadia: User, signed_in: SignIn) -> None:
    world.ask_credit()
    assert '<span class="count">1<' in page(signed_in(bob), reverse("home"))
    answer(signed_in(nadia), Escalation.objects.get(), "approve")
    assert '<span class="count">' not in page(signed_in(bob), reverse("home"))


def test_the_card_says_what_speaks_for_and_against_and_links_the_rule(world: Any, bob: User, signed_in: SignIn) -> None:
    """Facts of the remit, the tool and earlier answers; the rung's rule opens where it can be read."""
    first = world.ask_credit("180.00")
    html = signed_in(bob).get(reverse("approval", args=[first.pk])).content.decode()
    assert "amount 180.00 is beyond what the agent may do alone." in html
    assert "It can be undone." in html
    assert "Nobody has decided one like it yet." in html
    assert f'<a href="{reverse("mission-tab", args=[world.mission.pk, "remit"])}">grant/' in html
    signed_in(bob).post(
        reverse("approval-decide", args=[first.pk]), {"answer": "deny", "version": "1", "reason": "No ticket"}
    )
    second = world.ask_credit("190.00")
    html = signed_in(bob).get(reverse("approval", args=[second.pk])).content.decode()
    assert "The one like it before was refused." in html
    assert "Nobody has decided one like it yet." not in html
