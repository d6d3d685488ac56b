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

from budgets import services as budgets
from budgets.models import Account, DailySpend
from budgets.types import Limits, WindowKind
from controlplane.common.clock import now
from controlplane.tenancy.models import Organisation, User
from controlplane.tenancy.types import system_principal

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
    Account.objects.update(created_at=now() - timedelta(days=30))
    browser = signed_in(finn)
    for path in ("?format=csv", "?window=month&format=csv"):
        (row,) = [row for row in rows_of(browser, reverse("budgets") + path) if row["level"] == "organisation"]
        assert Decimal(row["a_day"]) == Decimal("0.25"), path


@pytest.mark.parametrize(
    ("age", "a_day", "lasts"),
    [
        (timedelta(minutes=30), "3.79", "under a day"),
        (timedelta(hours=36), "2.53", "under a day"),
        (timedelta(days=3, hours=2), "1.23", "under a day"),
        (timedelta(days=5), "0.76", "1 d"),
        (timedelta(days=90), "0.54", "2 d"),
    ],
)
def test_a_young_budgets_burn_is_averaged_over_its_own_days_and_its_first_counts_whole(
    elsewhen: Any, finn: User, signed_in: SignIn, age: timedelta, a_day: str, lasts: str
) -> None:
    account = elsewhen.account_of("mission", elsewhen.mission.pk)
    Account.objects.filter(pk=account).update(created_at=now() - age)
    system = system_principal(organisation_id=elsewhen.organisation.pk)
    budgets.set_limit(actor=system, account_id=account, window=WindowKind.TOTAL, limits=Limits(Decimal(5)))
    spend(elsewhen, "3.79")
    browser = signed_in(finn)
    html = page(browser, reverse("budget", args=[account])).split("<h2>Pace</h2>")[1]
    assert f"${a_day}" in html.split("Burn a day")[1].split("</dd>")[0]
    assert f">{lasts}<" in html.split("<dt>Lasts</dt>")[1].split("</dd>")[0] + "<"
    listed = page(browser, reverse("budgets") + f"?q={elsewhen.mission.title}")
    assert f">{lasts}</td>" in listed
    answer = browser.get(f"/api/v1/budgets/{account}").json()
    assert abs(Decimal(answer["burn_per_day"]["amount"]) - Decimal(a_day)) < Decimal("0.005")
