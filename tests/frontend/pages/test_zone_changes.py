"""Another time zone for an organisation at work: no limit begins anew, no day that is over moves, all adds up."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from budgets import services as budgets
from budgets.costs.checking import check_all
from budgets.costs.facts import refresh_changed
from budgets.costs.folding import fold_all
from budgets.models import Chain, DailySpend, FormerZone, Hold, Window
from budgets.types import Amounts, Limits, WindowKind
from controlplane.common.clock import now
from controlplane.common.ids import new_id
from controlplane.tenancy import organisations
from controlplane.tenancy.models import Organisation, User
from controlplane.tenancy.types import Principal
from tests.budgets.conftest import wrong_sums

from .spending import page, rows_of, spend

SignIn = Callable[..., Client]
AHEAD, BEHIND = "Pacific/Kiritimati", "Pacific/Pago_Pago"
KINDS = (WindowKind.DAY, WindowKind.WEEK, WindowKind.MONTH)


@pytest.fixture
def move(world: Any, nadia: User, signed_in: SignIn) -> Callable[[str], None]:
    """Settings, by an administrator."""

    def to(zone: str) -> None:
        shown = Organisation.objects.get(pk=world.organisation.pk)
        body = {
            "name": shown.name,
            "time_zone": zone,
            "sign_off_above": "5",
            "token_days_max": "90",
            "seen": organisations.version_of(shown),
        }
        assert signed_in(nadia).post(reverse("organisation"), body).status_code == 302

    return to


def reserve(world: Any, money: str) -> tuple[Any, Any]:
    hold = new_id()
    return hold, budgets.reserve(
        hold_id=hold,
        account_id=world.account_of("team", world.team.pk),
        organisation_id=world.organisation.pk,
        amounts=Amounts(Decimal(money), 0, 0),
        ttl_seconds=60,
    )


def test_windows_under_way_keep_what_is_held_and_spent(
    world: Any, as_finn: Principal, finn: User, signed_in: SignIn, move: Callable[[str], None]
) -> None:
    team = world.account_of("team", world.team.pk)
    for kind in KINDS:
        budgets.set_limit(actor=as_finn, account_id=team, window=kind, limits=Limits(Decimal(10)))
    charged, refusal = reserve(world, "7.00")
    assert refusal is None
    budgets.settle(hold_id=charged)
    held, refusal = reserve(world, "2.00")
    assert refusal is None
    browser = signed_in(finn)
    for zone in (AHEAD if now().hour >= 10 else BEHIND, "Asia/Kathmandu", "UTC"):
        move(zone)
        assert not Chain.objects.exists()
        assert reserve(world, "2.00")[1].reason_code == "budget.exhausted"
        running = Window.objects.filter(account_id=team, starts_at__lte=now(), ends_at__gt=now())
        assert sorted(running.values_list("kind", flat=True)) == sorted(KINDS)
        assert wrong_sums() == []
        for kind in KINDS:
            (row,) = [
                row
                for row in rows_of(browser, reverse("budgets") + f"?window={kind}&format=csv")
                if row["id"] == str(team)
            ]
            assert (Decimal(row["spent"]), Decimal(row["held"]).quantize(1)) == (7, 2)
            path = reverse("budget", args=[team]) + f"?show=charged&window={kind}&format=csv"
            assert [Decimal(line["money"]) for line in rows_of(browser, path)] == [7]
    budgets.settle(hold_id=held)
    last, refusal = reserve(world, "0.90")
    assert refusal is None
    budgets.void(hold_id=last)
    assert wrong_sums() == []


def test_days_that_are_over_stay_as_they_were_counted_and_add_up(
    world: Any, finn: User, signed_in: SignIn, move: Callable[[str], None]
) -> None:
    """Charged half an hour before midnight in Greenwich, and one of them reported after the change."""
    day = now().date() - timedelta(days=2)
    spend(world, "0.40", fold=False)
    late, refusal = reserve(world, "0.05")
    assert refusal is None
    Hold.objects.update(created_at=datetime.combine(day, time(23, 30), UTC))
    DailySpend.objects.update(day=day)
    fold_all()
    refresh_changed()
    move("Europe/Berlin")
    budgets.settle(hold_id=late)
    fold_all()
    browser, span = signed_in(finn), f"?period=days&from={day}&to={day}"
    for _ in range(2):
        assert check_all() == []
        html = page(browser, reverse("costs") + span)
        assert "Adds up" in html.split('id="cost-check"')[1]
        assert ">$0.45</data>" in html
        mission = page(browser, reverse("cost-mission", args=[world.mission.pk]) + span)
        assert "Adds up" in mission
        assert ">$0.40</data></div>" in mission.split('class="headline"')[1]
        call_command("costs", "rebuild")
    assert set(DailySpend.objects.values_list("day", flat=True)) == {day}


def test_other_settings_leave_the_ledger_alone(
    world: Any, finn: User, nadia: User, signed_in: SignIn, move: Callable[[str], None]
) -> None:
    spend(world, "0.40")
    chains, windows = list(Chain.objects.values()), list(Window.objects.order_by("pk").values())
    move("UTC")
    assert chains
    assert (list(Chain.objects.values()), list(Window.objects.order_by("pk").values())) == (chains, windows)
    assert not FormerZone.objects.exists()
