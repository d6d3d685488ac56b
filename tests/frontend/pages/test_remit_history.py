"""The remit's tab: its versions, who signed them off, and any two of them compared."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from agents import services as agents
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.models import Escalation

from .remit_page import Page, SignIn, words_of


def remit_tab(browser: Client, world: Any, query: str = "") -> str:
    response = browser.get(reverse("mission-tab", args=[world.mission.pk, "remit"]) + query)
    assert response.status_code == 200
    return response.content.decode()


@pytest.fixture
def rewritten(world: Any, as_bob: Principal, make_remit: Callable[..., Any]) -> Any:
    """Version 2 signed off by Bob, version 3 tighter, version 4 refused by Bob."""
    base = replace(make_remit(), deadline=world.mission.versions.get().deadline)

    def change(number: int, note: str, **changes: Any) -> None:
        agents.change_mission(
            actor=world.owner, mission_id=world.mission.pk, remit=replace(base, **changes), note=note,
            expected_version=number - 1,
        )  # fmt: skip

    change(2, "Autumn", budget_money=Decimal(4), goal="Chase the autumn invoices.")
    governance.decide(
        approver=as_bob, escalation_id=Escalation.objects.get().pk, version=1, approve=True, reason="Agreed"
    )
    change(3, "Less", budget_money=Decimal(3), goal="Chase the autumn invoices.")
    change(4, "Much more", budget_money=Decimal(90), deadline=base.deadline + timedelta(days=3))
    question = Escalation.objects.latest("id")
    governance.decide(approver=as_bob, escalation_id=question.pk, version=1, approve=False, reason="Too much")
    return world


def test_the_history_says_who_made_and_who_signed_off_each_version(
    rewritten: Any, finn: User, signed_in: SignIn
) -> None:
    words = words_of(remit_tab(signed_in(finn), rewritten).split('id="versions"')[1])
    assert re.search(r"2 Autumn Superseded Alice .* Bob", words)
    assert re.search(r"3 Less In force Alice .* not needed", words)
    assert re.search(r"4 Much more Refused Alice .* Bob refused .* Too much", words)


def test_any_two_versions_are_compared_in_sentences(rewritten: Any, finn: User, signed_in: SignIn) -> None:
    browser = signed_in(finn)
    usual = words_of(remit_tab(browser, rewritten))
    assert "From version 3 to version 4" in usual
    assert "Widens The budget is 90.00 USD, was 3.00 USD" in usual
    html = remit_tab(browser, rewritten, "?from=1&to=2")
    assert "Widens The goal is worded differently" in words_of(html)
    assert "<ins>Chase the autumn invoices.</ins>" in html
    back = words_of(remit_tab(browser, rewritten, "?from=2&to=1"))
    assert "Narrows The budget is 2.00 USD, was 4.00 USD" in back
    assert "No difference." in words_of(remit_tab(browser, rewritten, "?from=3&to=3"))
    for nonsense in ("?from=99&to=-1", "?from=x&to=%E2%80%AE", "?from=" + "9" * 40):
        assert "From version 3 to version 4" in words_of(remit_tab(browser, rewritten, nonsense))


def test_an_open_question_names_whom_it_waits_for(opened: Page, world: Any, bob: User, dana: User, nadia: User) -> None:
    opened.preview(budget="3.00").send()
    words = words_of(remit_tab(opened.browser, world))
    assert "Waits for Bob, Dana or Nadia" in words


def test_history_costs_the_same_with_two_versions_and_with_twenty(
    opened: Page, world: Any, finn: User, signed_in: SignIn, queries: Callable[..., int]
) -> None:
    browser, path = signed_in(finn), reverse("mission-tab", args=[world.mission.pk, "remit"])
    form = reverse("mission-change", args=[world.mission.pk])
    opened.preview(budget="1.99").send()
    few, few_of_form = queries(browser, path), queries(opened.browser, form)
    for step in range(18):
        opened.open().preview(budget=f"1.{98 - step}").send()
    assert world.mission.versions.count() == 20
    assert queries(browser, path) == few
    assert queries(opened.browser, form) == few_of_form
    assert max(few, few_of_form) <= 30
