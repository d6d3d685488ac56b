"""The inbox of questions: who is at work on one, what is said about it, identical ones together, and the filters."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from django.urls import reverse

from agents import services as agents
from agents.models import Run
from controlplane.common.clock import now
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services
from governance.choices import EscalationState
from governance.models import Escalation, Vote
from tests.frontend.conftest import principal_of_run

from .browsing import SignIn, page, send
from .questions import facts

HOSTILE = "=1+1<script>alert(1)</script>\x1b[31mred\u202egnp.exe"


def test_a_claim_is_shown_to_others_who_can_take_over(world: Any, bob: User, dana: User, signed_in: SignIn) -> None:
    escalation = world.ask_credit()
    first, second = signed_in(bob), signed_in(dana)
    send(first, "approval-claim", escalation.pk)
    assert "You are at work on this" in page(first, reverse("approval", args=[escalation.pk]))
    html = page(second, reverse("approval", args=[escalation.pk]))
    assert "is at work on this; their claim ends" in html
    assert "Bob is at work" in page(second, reverse("approvals"), tab="open")
    answer = {"answer": "approve", "version": "1"}
    assert "Bob is at work on this." in send(second, "approval-decide", escalation.pk, status=409, **answer)
    send(first, "approval-claim", escalation.pk, status=204, renew="1")
    send(second, "approval-claim", escalation.pk, take="over")
    send(second, "approval-decide", escalation.pk, **answer)
    escalation.refresh_from_db()
    assert escalation.state == EscalationState.APPROVED


def test_what_is_said_stands_beside_the_question_and_looks_like_what_it_is(
    world: Any, bob: User, signed_in: SignIn
) -> None:
    escalation = world.ask_credit()
    browser = signed_in(bob)
    send(browser, "approval-say", escalation.pk, text="Which delivery?", to="agent")
    send(browser, "approval-say", escalation.pk, text=HOSTILE, to="people")
    services.answer_question(principal=world.as_run, action_id=escalation.action_id, text=HOSTILE)
    html = page(browser, reverse("approval", args=[escalation.pk]))
    assert "Which delivery?" in html
    assert "The agent’s own words" in html
    assert "<script>alert" not in html
    assert "\x1b" not in html
    assert "\u202e" not in html
    before = facts()
    assert "Write something." in send(browser, "approval-say", escalation.pk, status=422, text=" ")
    assert facts() == before


def test_identical_questions_are_grouped_and_answered_together(world: Any, bob: User, signed_in: SignIn) -> None:
    rows = [world.ask_credit(key=f"credit-{number}") for number in range(3)]
    browser = signed_in(bob)
    html = page(browser, reverse("approvals"))
    assert html.count("identical to the one above") == 2
    assert "Approve all 3, once each" in html
    send(browser, "approvals-decide", answer="approve", row=[f"{row.pk}:1" for row in rows])
    assert set(Escalation.objects.values_list("state", flat=True)) == {"approved"}
    assert "3 of 3 answered" in page(browser, reverse("approvals"))


def test_a_bulk_answer_with_one_other_row_decides_nothing(world: Any, bob: User, signed_in: SignIn) -> None:
    rows = [world.ask_credit(key="one"), world.ask_credit(key="two"), world.ask_credit("500.00")]
    before = facts()
    chosen = [f"{row.pk}:1" for row in rows]
    html = send(signed_in(bob), "approvals-decide", status=422, answer="approve", row=chosen[1:], shown=str(rows[2].pk))
    assert "These are not the same" in html
    assert [value in re.findall(r'value="(\S+)" checked', html) for value in chosen] == [False, True, True]
    assert f'id="row-{rows[2].pk}" class="shown"' in html
    for body in ({}, {"answer": "approve"}, {"answer": "approve", "row": "x"}, {"answer": "approve", "row": "1:1"}):
        send(signed_in(bob), "approvals-decide", status=422, **body)
    assert facts() == before


def test_identical_questions_are_denied_together_with_one_reason(world: Any, bob: User, signed_in: SignIn) -> None:
    rows = [world.ask_credit(key=f"credit-{number}") for number in range(3)]
    other, browser, before = world.ask_credit("500.00"), signed_in(bob), facts()
    assert "Deny chosen" in page(browser, reverse("approvals"))
    chosen = [f"{row.pk}:1" for row in rows[:2]]
    html = send(browser, "approvals-decide", status=422, answer="deny", reason=" ", row=chosen)
    assert "A refusal needs a reason." in html
    assert sorted(re.findall(r'value="(\S+)" checked', html)) == sorted(chosen)
    mixed = send(browser, "approvals-decide", status=422, answer="deny", reason="No", row=[*chosen, f"{other.pk}:1"])
    assert "These are not the same" in mixed
    assert re.search(r"<details open>.*>No</textarea>", mixed)
    assert facts() == before
    send(browser, "approvals-decide", answer="deny", reason="Not without a ticket", row=chosen)
    assert "2 of 2 answered: refused" in page(browser, reverse("approvals"))
    assert list(Vote.objects.values_list("approve", "reason")) == [(False, "Not without a ticket")] * 2
    assert Escalation.objects.filter(state=EscalationState.OPEN).count() == 2


def test_answering_together_keeps_the_filters_of_the_list(world: Any, bob: User, signed_in: SignIn) -> None:
    rows, browser = [world.ask_credit(key=f"credit-{number}") for number in range(2)], signed_in(bob)
    address = f"{reverse('approvals-decide')}?kind=tool.call"
    assert f'action="{address}"' in page(browser, reverse("approvals"), kind="tool.call")
    answer = {"answer": "approve", "row": [f"{row.pk}:1" for row in rows]}
    assert browser.post(address, answer)["Location"] == f"{reverse('approvals')}?kind=tool.call"


def test_the_inbox_is_filtered_by_its_address(world: Any, bob: User, signed_in: SignIn) -> None:
    world.ask_credit()
    browser = signed_in(bob)
    assert "Nothing fits these filters" in page(browser, reverse("approvals"), kind="budget.topup")
    for query in ({"kind": "tool.call"}, {"kind": "no.such"}, {"team": "x"}, {"group": HOSTILE}):
        assert "INV-0131" in page(browser, reverse("approvals"), **query)
    assert "Nothing fits these filters" in page(browser, reverse("approvals"), risk="irreversible")


def test_lists_need_no_more_queries_for_more_questions(
    world: Any, nadia: User, bob: User, signed_in: SignIn, django_assert_max_num_queries: Any
) -> None:
    browser = signed_in(bob)
    world.ask_credit()
    page(browser, reverse("approvals"))
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as few:
        page(browser, reverse("approvals"))
    for number in range(12):
        world.ask_credit(f"{200 + number}.00")
    with CaptureQueriesContext(connection) as many:
        page(browser, reverse("approvals"))
    assert len(many) <= len(few) + 1


def test_questions_alike_of_two_missions_name_their_missions(
    world: Any, as_alice: Principal, bob: User, signed_in: SignIn
) -> None:
    world.ask_credit()
    other = world.draft("Chase the autumn invoices", budget="1.00")
    agents.submit_mission(actor=as_alice, mission_id=other.pk)
    other.refresh_from_db()
    run = Run.objects.get(mission=other)
    Run.objects.filter(pk=run.pk).update(state="running", started_at=now())
    second = dataclasses.replace(world, mission=other, run=run, as_run=principal_of_run(other, run)).ask_credit()
    browser = signed_in(bob)
    for path in (reverse("approvals"), reverse("approvals") + "?tab=open", reverse("home")):
        rows = re.findall(r"<li data-row.*?</li>", page(browser, path), re.DOTALL)
        for title in ("Chase overdue invoices", "Chase the autumn invoices"):
            assert sum(title in row for row in rows if "running-" not in row) == 1, (path, title)
    send(browser, "approval-decide", second.pk, answer="deny", version="1", reason="No")
    assert "· Chase the autumn invoices" in page(browser, reverse("approvals") + "?tab=decided")
