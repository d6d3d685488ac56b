"""Numbers on the pages of budgets open exactly the lines they are the sum of, whatever the window."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from budgets import journal
from budgets import services as budgets
from budgets.models import Chain, DailySpend, Hold, Window
from budgets.types import Amounts, WindowKind
from controlplane.common.clock import now
from controlplane.common.ids import new_id
from controlplane.tenancy.models import User

from .spending import page, rows_of, spend

SignIn = Callable[..., Client]


def long_ago() -> None:
    """All that was spent so far is of a month that is over."""
    then = now() - timedelta(days=40)
    Hold.objects.update(created_at=then)
    DailySpend.objects.update(day=then.date())
    Window.objects.filter(kind="month").update(starts_at=then, ends_at=then + timedelta(days=1))
    Chain.objects.all().delete()


def hold_more(world: Any, money: str) -> None:
    refusal = budgets.reserve(
        hold_id=new_id(),
        account_id=world.mission.account_id,
        organisation_id=world.organisation.pk,
        amounts=Amounts(Decimal(money), 0, 0),
        ttl_seconds=60,
    )
    assert refusal is None


def agree(browser: Client, spent: dict[str, str]) -> None:
    """In each window: what was spent above the mission, and its lines."""
    for window in WindowKind:
        tree = f"{reverse('budgets')}?window={window}"
        html = page(browser, tree)
        for row in rows_of(browser, f"{tree}&format=csv"):
            if row["level"] not in ("organisation", "team") or row["budget"] == "Logistics":
                continue
            assert Decimal(row["spent"]) == Decimal(spent[window]), (window, row)
            path = f"{reverse('budget', args=[row['id']])}?show=charged&amp;window={window}"
            assert path in html
            lines = rows_of(browser, path.replace("&amp;", "&") + "&format=csv")
            assert sum(Decimal(line["money"]) for line in lines) == Decimal(row["spent"]), (window, row)


@pytest.mark.parametrize("few", [journal.FEW, 0])
def test_windows_without_a_limit_or_with_nothing_in_them_open_their_lines(
    world: Any, finn: User, signed_in: SignIn, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(journal, "FEW", few)
    spend(world, "0.50")
    long_ago()
    browser = signed_in(finn)
    agree(browser, {"total": "0.50", "month": "0", "week": "0", "day": "0"})
    spend(world, "0.75")
    agree(browser, {"total": "1.25", "month": "0.75", "week": "0.75", "day": "0.75"})


def test_what_is_held_is_shown_in_the_window_it_was_held_in(world: Any, finn: User, signed_in: SignIn) -> None:
    spend(world, "0.10")
    long_ago()
    earlier = sum(Hold.objects.filter(closed_at=None).values_list("money", flat=True))
    hold_more(world, "0.50")
    browser = signed_in(finn)
    for window, held in (("total", earlier + Decimal("0.50")), ("day", Decimal("0.50"))):
        rows = rows_of(browser, f"{reverse('budgets')}?window={window}&format=csv")
        (row,) = [row for row in rows if row["level"] == "organisation"]
        assert Decimal(row["held"]) == held
    path = reverse("budget", args=[row["id"]]) + "?show=held&window=day&format=csv"
    assert [(line["kind"], Decimal(line["money"])) for line in rows_of(browser, path)] == [("reserve", held)]
