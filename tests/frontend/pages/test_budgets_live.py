"""Open pages of budgets hear of what is decided about them, and show it all: numbers, lines and the freeze."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from budgets import services as budgets
from budgets.types import Limits, WindowKind
from controlplane.live import services as live
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal

from .spending import spend
from .test_in_the_browser import Show, show

__all__ = ["show"]


class Sent(list[tuple[str, str]]):
    def send(self, *, topic: str, what: str) -> None:
        self.append((topic, what))


@pytest.mark.parametrize("change", ["limit", "freeze", "unfreeze"])
def test_the_tree_and_the_budgets_above_hear_of_every_decision(
    world: Any,
    as_finn: Principal,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Callable[..., Any],
    change: str,
) -> None:
    sent, account = Sent(), world.account_of("team", world.team.pk)
    monkeypatch.setattr(live, "sender", lambda: sent)
    with django_capture_on_commit_callbacks(execute=True):
        match change:
            case "limit":
                limits = Limits(Decimal(50))
                budgets.set_limit(actor=as_finn, account_id=account, window=WindowKind.MONTH, limits=limits)
            case "freeze":
                budgets.freeze(actor=as_finn, account_id=account, reason="Odd spending")
            case "unfreeze":
                budgets.unfreeze(actor=as_finn, account_id=account, reason="Explained")
    assert (f"budget:{account}", "balance") in sent
    assert (f"organisation:{world.organisation.pk}", "budgets") in sent


def test_the_page_of_a_budget_listens_to_decisions_and_to_actions(
    world: Any, finn: User, signed_in: Callable[..., Client]
) -> None:
    account = world.account_of("mission", world.mission.pk)
    html = signed_in(finn).get(reverse("budget", args=[account])).content.decode()
    part = html.split('id="budget-body"')[1].split(">")[0]
    assert f'data-live="budget:{account} organisation:{world.organisation.pk}"' in part
    assert 'data-live-part="balance budgets actions"' in part


@pytest.mark.browser
@pytest.mark.slow
def test_an_open_budget_shows_what_was_spent_and_that_it_was_frozen(
    world: Any, as_finn: Principal, finn: User, show: Show
) -> None:
    account = world.account_of("team", world.team.pk)
    page = show(finn, reverse("budget", args=[account]))
    spend(world, "1.25")
    budgets.freeze(actor=as_finn, account_id=account, reason="Odd spending")
    page.evaluate("htmx.trigger('#budget-body', 'live')")
    page.wait_for_selector("#budget-lead >> text=Frozen by hand: Odd spending")
    assert "$1.25" in page.locator("#budget-numbers").inner_text()
    assert "$1.25" in page.locator("#budget-body").inner_text()
    page.evaluate("htmx.trigger('#budget-body', 'live')")
    page.wait_for_load_state("networkidle")
    assert page.locator("#budget-lead").count() == page.locator("#budget-numbers").count() == 1
    assert page.complaints == []
