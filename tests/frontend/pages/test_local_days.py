"""Days are those of the organisation, wherever the server's clock stands."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.test import Client
from django.urls import reverse

from budgets.models import DailySpend
from controlplane.common.clock import now
from controlplane.tenancy.models import Organisation, User

from .spending import page, rows_of, spend

SignIn = Callable[..., Client]
AHEAD, BEHIND = "Etc/GMT-14", "Etc/GMT+12"


@pytest.fixture
def elsewhen(world: Any) -> Any:
    """Northwind where it is another day than in Greenwich, whenever the test runs."""
    zone = AHEAD if now().hour >= 10 else BEHIND
    Organisation.objects.filter(pk=world.organisation.pk).update(time_zone=zone)
    world.today = now().astimezone(ZoneInfo(zone)).date()
    assert world.today != now().date()
    return world


def spent_on(world: Any, days_ago: int, money: str) -> None:
    world.mission.refresh_from_db()
    DailySpend.objects.create(
        account_id=world.mission.account_id,
        day=world.today - timedelta(days=days_ago),
        money=Decimal(money),
        tokens=0,
        steps=0,
    )


def test_today_on_the_home_page_is_the_organisations_day(elsewhen: Any, finn: User, signed_in: SignIn) -> None:
    spend(elsewhen, "1.25")
    spent_on(elsewhen, 1, "0.50")
    spent_on(elsewhen, 13, "0.25")
    spent_on(elsewhen, 14, "9.00")
    card = page(signed_in(finn), reverse("home")).split("<h2>Spend</h2>")[1].split("</section>")[0]
    assert "$1.25" in card.split("today")[0]
    assert "9.00" not in card


def test_the_burn_is_that_of_seven_local_days(elsewhen: Any, finn: User, signed_in: SignIn) -> None:
    spend(elsewhen, "1.00")
    spent_on(elsewhen, 6, "0.75")
    spent_on(elsewhen, 7, "7.00")
    browser = signed_in(finn)
    for path in ("?format=csv", "?window=month&format=csv"):
        (row,) = [row for row in rows_of(browser, reverse("budgets") + path) if row["level"] == "organisation"]
        assert Decimal(row["a_day"]) == Decimal("0.25"), path
