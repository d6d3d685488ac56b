"""A question that somebody reads while others ask, answer and speak: what its open page asks for again, and shows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from controlplane.common.clock import now
from controlplane.tenancy.models import User
from governance.choices import EscalationState
from governance.models import Escalation

from .live_parts import again, parts_of

SignIn = Callable[..., Client]
PARTS = ("approval-card", "approvals-inbox")


def answer(browser: Client, escalation: Escalation, what: str, **body: str) -> Any:
    return browser.post(reverse("approval-decide", args=[escalation.pk]), {"answer": what, "version": "1", **body})


def body_of(response: Any, status: int = 200) -> str:
    assert response.status_code == status
    return str(response.content.decode())


def urgent(world: Any) -> Escalation:
    escalation: Escalation = world.ask_credit("160.00")
    Escalation.objects.filter(pk=escalation.pk).update(expires_at=now() + timedelta(minutes=3))
    return escalation


@pytest.mark.parametrize("query", ["", "?tab=open", "?kind=tool.call"])
def test_the_question_somebody_reads_stays_when_a_more_urgent_one_comes(
    world: Any, bob: User, signed_in: SignIn, query: str
) -> None:
    browser, read = signed_in(bob), world.ask_credit("150.00")
    page = body_of(browser.get(reverse("approvals") + query))
    other = urgent(world)
    card, inbox = (again(browser, page, name) for name in PARTS)
    assert reverse("approval-decide", args=[read.pk]) in card
    assert reverse("approval-decide", args=[other.pk]) not in card
    assert inbox.index(f"row-{other.pk}") < inbox.index(f"row-{read.pk}")
    assert f'id="row-{read.pk}" class="shown" aria-current="true"' in inbox
    assert inbox.count("aria-current") == 1
    assert f'{reverse("approval", args=[other.pk])}{query}" data-row-link data-key=' in inbox


def test_the_question_somebody_reads_stays_when_another_answers_it(
    world: Any, bob: User, dana: User, signed_in: SignIn
) -> None:
    browser, read = signed_in(bob), world.ask_credit("150.00")
    page = body_of(browser.get(reverse("approvals")))
    assert answer(signed_in(dana), read, "approve").status_code == 302
    card, inbox = (again(browser, page, name) for name in PARTS)
    assert "Dana approved" in card
    assert 'name="answer"' not in card
    assert "Nothing waits for you" in inbox
    other = world.ask_credit("160.00")
    card, inbox = (again(browser, page, name) for name in PARTS)
    assert "Dana approved" in card
    assert str(other.pk) not in card
    assert "Waiting for you" in inbox
    assert f"row-{other.pk}" in inbox


def test_a_page_that_says_why_nothing_was_done_goes_on_following(
    world: Any, bob: User, dana: User, signed_in: SignIn
) -> None:
    browser, asked = signed_in(bob), world.ask_credit("150.00")
    told = body_of(answer(browser, asked, "deny"), 422)
    assert answer(signed_in(dana), asked, "approve").status_code == 302
    late = body_of(answer(browser, asked, "deny", reason="I would not"), 409)
    mute = body_of(browser.post(reverse("approval-say", args=[asked.pk]), {"text": " "}), 422)
    for page in (told, late, mute):
        for name in PARTS:
            assert "Dana approved" in again(browser, page, "approval-card")
            assert again(browser, page, name)
    assert "Dana approved before you. Your answer was not counted." in late
    assert "before you" not in parts_of(late)["approval-card"], (
        "the next hint takes the card anew, and the reader still reads"
    )


def test_words_that_were_refused_stay_in_their_field(world: Any, bob: User, signed_in: SignIn) -> None:
    browser, asked = signed_in(bob), world.ask_credit("150.00")
    page = body_of(browser.post(reverse("approval-say", args=[asked.pk]), {"text": "x" * 3000}), 422)
    form = parts_of(page)["approval-card"].split(reverse("approval-say", args=[asked.pk]))[1]
    assert form.startswith('" data-changed'), "a part with something typed in it waits for who typed it"
    assert "x" * 3000 in form
    asked.refresh_from_db()
    assert asked.state == EscalationState.OPEN
    assert "data-changed" not in body_of(browser.get(reverse("approval", args=[asked.pk])))
