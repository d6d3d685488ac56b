"""Editing a question before approving it: the verdict is shown first, and whoever may not decide may not edit."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse

from controlplane.tenancy.models import User
from governance.choices import ActionState
from governance.models import Action, Escalation, Vote

from .browsing import SignIn, page, send
from .questions import edited, facts


def test_the_form_shows_the_verdict_before_anything_is_sent(world: Any, bob: User, signed_in: SignIn) -> None:
    escalation = world.ask_credit("240.00")
    browser = signed_in(bob)
    html = page(browser, reverse("approval-edit", args=[escalation.pk]))
    assert 'value="240.00"' in html
    assert "Approve as edited" not in html
    before = facts()
    html = send(browser, "approval-edit", escalation.pk, status=200, **edited("150.00", "preview"))
    assert "What the gate would say" in html
    assert "&quot;240.00&quot;" in html
    assert "&quot;150.00&quot;" in html
    assert "Approve as edited" in html
    html = send(browser, "approval-edit", escalation.pk, status=200, **edited("900.00", "preview"))
    assert "Approve as edited" not in html
    assert "books__apply_credit is allowed only within limits on amount." in html
    assert facts() == before


def test_sending_replaces_the_call_and_approves_it_once(world: Any, bob: User, signed_in: SignIn) -> None:
    escalation = world.ask_credit("240.00")
    browser = signed_in(bob)
    send(browser, "approval-edit", escalation.pk, **edited("150.00", "send", reason="Half is enough"))
    made = Action.objects.get(replaces=escalation.action_id)
    assert (made.state, made.arguments["amount"]) == (ActionState.PERMITTED, "150.00")
    assert Vote.objects.get().reason == "Half is enough"
    html = page(browser, reverse("approval", args=[Escalation.objects.get(action=made).pk]))
    assert "A person changed what the agent asked for" in html
    before = facts()
    assert "can&#x27;t be edited" in send(
        browser, "approval-edit", escalation.pk, status=409, **edited("120.00", "send")
    )
    assert facts() == before


@pytest.mark.parametrize("amount", ["900.00", "-5.00", "", "abc", "1e9"])
def test_an_edit_that_the_gate_refuses_changes_nothing(world: Any, bob: User, signed_in: SignIn, amount: str) -> None:
    escalation = world.ask_credit("240.00")
    before = facts()
    html = send(signed_in(bob), "approval-edit", escalation.pk, status=422, **edited(amount, "send"))
    assert "The gate refuses it as edited" in html
    assert facts() == before


def test_whoever_may_not_decide_may_not_edit(
    world: Any, alice: User, finn: User, charlie: User, signed_in: SignIn
) -> None:
    escalation = world.ask_credit("240.00")
    before = facts()
    for person, status in ((alice, 403), (finn, 404), (charlie, 404)):
        browser = signed_in(person)
        page(browser, reverse("approval-edit", args=[escalation.pk]), status=status)
        send(browser, "approval-edit", escalation.pk, status=status, **edited("150.00", "send"))
    assert facts() == before
