"""Asking for more budget on a mission's page: the form, whom it waits for, and what became of it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from agents import services as agents
from agents.models import Mission, Run
from budgets import selectors as budgets
from controlplane.common.clock import now
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.models import Action, Escalation
from governance.types import Proposal
from tests.frontend.conftest import principal_of_run

SignIn = Callable[..., Client]
PRIMARY = '<a class="button primary" href="{}">'
HOSTILE = "<script>alert(1)</script>\u202egnp.exe"


def ask(browser: Client, mission: Mission, money: str = "5.00", reason: str = "Twelve more", **more: str) -> Any:
    body = {"money": money, "reason": reason, "key": str(uuid.uuid4()), **more}
    return browser.post(reverse("mission-ask", args=[mission.pk]), body)


def tab(browser: Client, mission: Mission) -> str:
    html = browser.get(reverse("mission-tab", args=[mission.pk, "budget"])).content.decode()
    requests = html.split('id="mission-requests"')[1].split("</section>")[0]
    return " ".join(re.sub(r"<[^>]+>", " ", requests).split())


def asking_says(browser: Client, mission: Mission) -> str:
    html = browser.get(reverse("mission-ask", args=[mission.pk])).content.decode()
    about = html.split('<div class="muted stack tight">')[1].split("</div>")[0]
    return " ".join(re.sub(r"<[^>]+>", " ", about).split())


def limit_of(mission: Mission) -> Decimal | None:
    return budgets.mission_spend(mission_ids=[mission.pk])[mission.pk].limits.money


def test_asking_says_whom_it_waits_for_and_raises_nothing_yet(
    world: Any, alice: User, bob: User, dana: User, signed_in: SignIn
) -> None:
    browser = signed_in(alice)
    assert "It waits for Bob or Dana. You never decide your own request." in asking_says(browser, world.mission)
    response = ask(browser, world.mission, "5,00")
    assert response["Location"] == reverse("mission-tab", args=[world.mission.pk, "budget"])
    assert re.search(r"\+ \$5.00 Twelve more Waits for Bob or Dana", tab(browser, world.mission))
    assert limit_of(world.mission) == 2
    again = browser.get(reverse("mission-ask", args=[world.mission.pk])).content.decode()
    assert "is asked for already, by Alice" in again


def test_who_asked_takes_it_back_and_nobody_has_to_answer(
    world: Any, alice: User, bob: User, signed_in: SignIn
) -> None:
    browser, approver = signed_in(alice), signed_in(bob)
    ask(browser, world.mission, "500.00")
    question = Escalation.objects.get()
    path, card = reverse("approval-withdraw", args=[question.pk]), reverse("approval", args=[question.pk])
    assert path not in approver.get(card).content.decode()
    assert approver.post(path).status_code == 404
    question.refresh_from_db()
    assert question.state == "open"
    assert path in browser.get(card).content.decode()
    assert path in browser.get(reverse("mission-tab", args=[world.mission.pk, "budget"])).content.decode()
    said = browser.post(path, follow=True).content.decode()
    assert "Nobody is asked any more." in said
    assert ": by Alice</p>" in said
    assert path not in said
    question.refresh_from_db()
    assert (question.state, question.action.state) == ("withdrawn", "withdrawn")
    assert limit_of(world.mission) == 2
    twice = browser.post(path)
    assert twice.status_code == 409
    assert "no longer waiting or permitted" in twice.content.decode()


def test_who_asked_without_seeing_questions_is_offered_nothing_that_is_not_there(
    world: Any, finn: User, as_finn: Principal, signed_in: SignIn
) -> None:
    arguments = {"money": "5.00", "reason": "Month's end", "account_id": str(world.mission.account_id)}
    governance.propose(proposer=as_finn, proposal=Proposal(kind="budget.topup", arguments=arguments))
    shown = tab(signed_in(finn), world.mission)
    assert "Month&#x27;s end Waits" in shown
    assert "Withdraw" not in shown


def test_a_second_request_is_said_to_whoever_decides_one_of_them(
    world: Any, alice: User, bob: User, signed_in: SignIn
) -> None:
    browser, approver = signed_in(alice), signed_in(bob)
    ask(browser, world.mission, "2.50")
    first = reverse("approval", args=[Escalation.objects.get().pk])
    assert "is asked for as well" not in approver.get(first).content.decode()
    ask(browser, world.mission, "3.00")
    shown = " ".join(re.sub(r"<[^>]+>", "", approver.get(first).content.decode()).split())
    assert re.search(r"\$3.00 more for .* is asked for as well, by Alice .*: both would be given.", shown)


def test_asking_says_whom_each_amount_would_ask_by_the_routes_there_are(
    world: Any, alice: User, bob: User, dana: User, as_nadia: Principal, signed_in: SignIn
) -> None:
    browser = signed_in(alice)
    desk = governance.save_group(actor=as_nadia, name="Directors", member_ids=[dana.pk, bob.pk])
    for name, above, group, needed in (("Board", "500.00", desk.pk, 2), ("Dear", "50.00", None, 1)):
        route = governance.Route(
            name=name,
            kind="budget.topup",
            amount_above=Decimal(above),
            amount_argument="money",
            group_id=group,
            needed=needed,
        )
        governance.save_route(actor=as_nadia, route=route)
    said = asking_says(browser, world.mission)
    assert "It waits for Bob, Dana or Nadia. Above $500.00 it needs 2 approvals of Directors, from Bob or Dana." in said
    ask(browser, world.mission, "501.00")
    asked = Escalation.objects.get()
    assert (asked.group_id, asked.needed) == (desk.pk, 2)


def test_asking_says_where_too_few_people_could_ever_agree(
    world: Any, alice: User, bob: User, as_nadia: Principal, signed_in: SignIn
) -> None:
    desk = governance.save_group(actor=as_nadia, name="Owners", member_ids=[alice.pk])
    governance.save_route(actor=as_nadia, route=governance.Route(name="Own", kind="budget.topup", group_id=desk.pk))
    said = asking_says(signed_in(alice), world.mission)
    assert "It asks Owners, and nobody but you may decide it now: ask an administrator for an approver first." in said


def test_a_next_tier_is_named_where_the_first_can_not_answer(
    world: Any, alice: User, bob: User, dana: User, as_nadia: Principal, signed_in: SignIn
) -> None:
    first = governance.save_group(actor=as_nadia, name="Owners", member_ids=[alice.pk])
    second = governance.save_group(actor=as_nadia, name="Directors", member_ids=[dana.pk])
    route = governance.Route(
        name="Own", kind="budget.topup", group_id=first.pk, next_group_id=second.pk, next_seconds=3600
    )
    governance.save_route(actor=as_nadia, route=route)
    assert "It waits for Dana (Owners and Directors)." in asking_says(signed_in(alice), world.mission)


def test_agreeing_raises_the_limit_and_refusing_does_not(
    world: Any, alice: User, as_bob: Principal, signed_in: SignIn
) -> None:
    browser = signed_in(alice)
    for agree in (False, True):
        ask(browser, world.mission, reason=f"try {agree}")
        question = Escalation.objects.latest("id")
        governance.decide(approver=as_bob, escalation_id=question.pk, version=1, approve=agree, reason="As agreed")
    words = tab(browser, world.mission)
    assert re.search(r"try True Raised Bob agreed .*: As agreed", words)
    assert re.search(r"try False Refused.* Bob refused .*: As agreed", words)
    assert limit_of(world.mission) == 7


def test_who_asked_does_not_decide_even_as_an_administrator(world: Any, nadia: User, signed_in: SignIn) -> None:
    browser = signed_in(nadia)
    assert (
        "nobody but you may decide it now"
        in browser.get(reverse("mission-ask", args=[world.mission.pk])).content.decode()
    )
    ask(browser, world.mission)
    question = Escalation.objects.get()
    refused = browser.post(reverse("approval-decide", args=[question.pk]), {"answer": "approve", "version": "1"})
    assert refused.status_code == 403
    assert limit_of(world.mission) == 2


@pytest.mark.parametrize(
    ("money", "reason", "words"),
    [
        ("", "Because", "This field is required."),
        ("much", "Because", "An amount such as 5.00"),
        ("0", "Because", "An amount such as 5.00"),
        ("-5", "Because", "An amount such as 5.00"),
        ("1e5", "Because", "An amount such as 5.00"),
        ("0.0000001", "Because", "at most six decimals"),
        ("9" * 31, "Because", "at most 30 characters"),
        ("9" * 18, "Because", "Too large: at most 15 digits"),
        ("9" * 13, "Because", "Too large: at most 999,999,999,999."),
        ("5.00", " ", "This field is required."),
        ("5.00", "x" * 301, "at most 300 characters"),
        (HOSTILE[:30], "Because", "An amount such as 5.00"),
    ],
)
def test_refused_input_asks_nobody_and_keeps_what_was_typed(
    world: Any, alice: User, signed_in: SignIn, money: str, reason: str, words: str
) -> None:
    response = ask(signed_in(alice), world.mission, money, reason)
    html = response.content.decode()
    assert response.status_code == 422
    assert words in html
    assert "<script>alert" not in html
    if "<" not in money:
        assert f'value="{money}"' in html or not money
        assert reason in html
    assert not Action.objects.filter(kind="budget.topup").exists()


def test_the_same_form_sent_twice_asks_once(world: Any, alice: User, signed_in: SignIn) -> None:
    browser, key = signed_in(alice), str(uuid.uuid4())
    for _ in range(2):
        assert ask(browser, world.mission, key=key).status_code == 302
    assert Action.objects.filter(kind="budget.topup").count() == 1
    ask(browser, world.mission, "6.00", key=key)
    ask(browser, world.mission, key="no key at all")
    assert Action.objects.filter(kind="budget.topup").count() == 3


def test_only_a_mission_under_way_asks(world: Any, alice: User, signed_in: SignIn) -> None:
    browser, draft = signed_in(alice), world.draft("Later")
    assert ask(browser, draft).status_code == 409
    agents.stop_mission(actor=world.owner, mission_id=world.mission.pk, reason="enough")
    assert ask(browser, world.mission).status_code == 409
    assert "Ask for budget" not in browser.get(reverse("mission", args=[world.mission.pk])).content.decode()
    assert not Action.objects.filter(kind="budget.topup").exists()


def test_asking_is_the_thing_to_do_where_the_budget_stopped_it(
    world: Any, alice: User, bob: User, as_bob: Principal, signed_in: SignIn
) -> None:
    mission = world.draft("Small", budget="0.035")
    agents.submit_mission(actor=world.owner, mission_id=mission.pk)
    mission.refresh_from_db()
    run = Run.objects.get(mission=mission)
    Run.objects.filter(pk=run.pk).update(state="running", started_at=now())
    as_run = principal_of_run(mission, run)
    primary = PRIMARY.format(reverse("mission-ask", args=[mission.pk]))
    browser, path = signed_in(alice), reverse("mission", args=[mission.pk])
    assert primary not in browser.get(path).content.decode()
    codes = [
        governance.propose(
            proposer=as_run, proposal=Proposal(kind="tool.call", tool="books__overdue", arguments={"n": str(number)})
        ).reason_code
        for number in range(2)
    ]
    assert codes[-1] == "budget.exhausted"
    html = browser.get(path).content.decode()
    assert primary in html
    assert "Its last call needed" in html
    assert "Ask for budget" not in signed_in(bob).get(path).content.decode()
    ask(browser, mission)
    governance.decide(approver=as_bob, escalation_id=Escalation.objects.get().pk, version=1, approve=True, reason="")
    assert primary not in browser.get(path).content.decode()


def test_the_tab_costs_the_same_with_one_request_and_with_nine(
    world: Any, alice: User, signed_in: SignIn, queries: Callable[..., int]
) -> None:
    browser, path = signed_in(alice), reverse("mission-tab", args=[world.mission.pk, "budget"])
    ask(browser, world.mission)
    few = queries(browser, path)
    for _ in range(8):
        ask(browser, world.mission, reason=HOSTILE)
    assert queries(browser, path) == few
    assert few <= 31
    html = browser.get(path).content.decode().split("<body")[1]
    assert "<script>alert" not in html
    assert "\u202e" not in html


@pytest.mark.parametrize(
    ("typed", "said"), [("2.50", "$2.50"), ("1200", "$1,200.00"), ("0.0042", "$0.0042"), ("3.123456", "$3.123456")]
)
def test_a_request_is_titled_with_its_exact_amount_as_pages_write_money(
    world: Any, alice: User, bob: User, signed_in: SignIn, typed: str, said: str
) -> None:
    ask(signed_in(alice), world.mission, typed)
    question = Escalation.objects.select_related("action").get()
    assert question.title == f"{said} more for “Chase overdue invoices”"
    assert Decimal(question.action.arguments["money"]) == Decimal(typed)
    assert f"{said} more for" in signed_in(bob).get(reverse("approvals")).content.decode()
