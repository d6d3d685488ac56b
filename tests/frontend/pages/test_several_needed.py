"""A question that several people must agree to: every page says how many of whom it still waits for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from django.urls import reverse

from agents.waiting import names_in_words
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.models import Escalation

from .browsing import SignIn, page


@pytest.mark.parametrize(
    ("names", "needed", "most", "said"),
    [
        ("Bob", 1, None, "Bob"),
        ("Bob Dana", 1, None, "Bob or Dana"),
        ("Bob Dana Nadia", 1, None, "Bob or 2 others"),
        ("Bob Dana Nadia", 1, 4, "Bob, Dana or Nadia"),
        ("Bob Dana Nadia Omar Uma", 1, 4, "Bob, Dana, Nadia or 2 others"),
        ("Bob Dana", 2, None, "Bob and Dana"),
        ("Bob Dana Nadia", 2, None, "2 of Bob, Dana and Nadia"),
        ("Bob Dana Nadia Omar", 3, None, "3 of Bob, Dana and 2 others"),
        ("Bob Dana Nadia Omar", 4, None, "Bob, Dana and 2 others"),
    ],
)
def test_how_many_of_whom_is_said_in_words(names: str, needed: int, most: int | None, said: str) -> None:
    assert names_in_words(names.split(), needed, most=most) == said


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def ask_two_of(people: Sequence[User], actor: Principal, kind: str) -> None:
    group = governance.save_group(actor=actor, name="Desk", member_ids=[user.pk for user in people])
    governance.save_route(actor=actor, route=governance.Route(name="Two", kind=kind, group_id=group.pk, needed=2))


def test_lists_and_pages_of_missions_say_how_many_of_whom_are_needed(
    world: Any,
    alice: User,
    bob: User,
    dana: User,
    nadia: User,
    as_bob: Principal,
    as_nadia: Principal,
    signed_in: SignIn,
) -> None:
    ask_two_of([bob, dana, nadia], as_nadia, "tool.call")
    question, browser = world.ask_credit(), signed_in(alice)
    pages = (reverse("missions"), reverse("home"), reverse("mission", args=[world.mission.pk]))
    for path in pages:
        assert "Waits for 2 of Bob, Dana and Nadia" in words(page(browser, path)), path
    assert "2 of Bob, Dana and Nadia" in words(page(browser, pages[2]) + page(browser, pages[2], part="timeline"))
    governance.decide(approver=as_bob, escalation_id=question.pk, version=1, approve=True, reason="")
    for path in pages:
        assert "Waits for Dana or Nadia" in words(page(browser, path)), path
    assert "You have answered. It waits for another approver." in words(
        page(signed_in(bob), reverse("approval", args=[question.pk]))
    )


def test_a_request_for_more_says_how_many_of_whom_are_needed(
    world: Any, alice: User, bob: User, dana: User, nadia: User, as_nadia: Principal, signed_in: SignIn
) -> None:
    ask_two_of([bob, dana, nadia], as_nadia, "budget.topup")
    browser = signed_in(alice)
    browser.post(reverse("mission-ask", args=[world.mission.pk]), {"money": "3", "reason": "Twelve more"})
    assert Escalation.objects.get().needed == 2
    tab = page(browser, reverse("mission-tab", args=[world.mission.pk, "budget"]))
    assert "Waits for 2 of Bob, Dana and Nadia, refused" in words(tab)
    asked = page(browser, reverse("mission-ask", args=[world.mission.pk]))
    assert "It waits for 2 of Bob, Dana and Nadia." in words(asked)
