"""An action nobody reported on: a person who may operate the mission says what came of it, on its page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from controlplane.audit.models import Entry
from controlplane.tenancy.models import User
from governance.choices import ActionState
from governance.models import Action

SignIn = Callable[..., Client]


@pytest.fixture
def unknown(world: Any) -> Action:
    judgement = world.act(
        "books__apply_credit", outcome="unknown", invoice="INV-0113", amount="40.00", reason="Delivered late"
    )
    action = Action.objects.get(pk=judgement.action_id)
    assert action.state == ActionState.UNKNOWN
    return action


def settle(browser: Client, action: Action, **fields: str) -> Any:
    return browser.post(reverse("action-settle", args=[action.pk]), fields)


def test_the_owner_settles_it_with_how_they_know(unknown: Action, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    page = reverse("action", args=[unknown.pk])
    assert "Settle what came of it" in browser.get(page).content.decode()
    response = settle(browser, unknown, outcome="success", reason="The credit note CN-0007 is in the book.")
    assert response.status_code == 302
    unknown.refresh_from_db()
    assert unknown.state == ActionState.SUCCEEDED
    assert unknown.cost == unknown.price
    html = browser.get(page).content.decode()
    assert "<b>Alice</b> settled it: The credit note CN-0007 is in the book." in html
    assert "Settle what came of it" not in html
    assert Entry.objects.filter(subject_id=unknown.pk, event="action.reconciled").count() == 1


@pytest.mark.parametrize("fields", [{}, {"outcome": "maybe", "reason": "x"}, {"outcome": "failure", "reason": "  "}])
def test_without_an_outcome_and_a_reason_nothing_is_settled(
    unknown: Action, alice: User, signed_in: SignIn, fields: dict[str, str]
) -> None:
    response = settle(signed_in(alice), unknown, **fields)
    assert response.status_code == 422
    assert "Settle what came of it" in response.content.decode()
    unknown.refresh_from_db()
    assert unknown.state == ActionState.UNKNOWN


def test_who_may_not_operate_the_mission_sees_no_form_and_settles_nothing(
    unknown: Action, bob: User, charlie: User, signed_in: SignIn
) -> None:
    assert "Settle what came of it" not in signed_in(bob).get(reverse("action", args=[unknown.pk])).content.decode()
    for person in (bob, charlie):
        assert settle(signed_in(person), unknown, outcome="failure", reason="I say so").status_code == 404
    unknown.refresh_from_db()
    assert unknown.state == ActionState.UNKNOWN


def test_whoever_comes_second_learns_that_it_is_known(unknown: Action, alice: User, signed_in: SignIn) -> None:
    browser = signed_in(alice)
    settle(browser, unknown, outcome="failure", reason="No credit note is there.")
    response = settle(browser, unknown, outcome="success", reason="Or was it?")
    assert response.status_code == 409
    assert "known already" in response.content.decode()
    unknown.refresh_from_db()
    assert unknown.state == ActionState.FAILED
