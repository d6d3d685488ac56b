"""A CSV file holds every row of its list to the last, and its total is the page's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from budgets.costs.facts import refresh_changed
from budgets.costs.folding import fold_all
from budgets.costs.selectors import every_mission_of_goal
from budgets.costs.types import Span
from budgets.models import CostMission
from controlplane.audit import selectors as audit
from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import selectors as governance
from governance.models import Action

from .spending import page, rows_of, spend

SignIn = Callable[..., Client]


def test_every_line_of_a_budget_is_in_its_file(world: Any, finn: User, signed_in: SignIn) -> None:
    account = world.account_of("team", world.team.pk)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO budgets_journal (at, organisation_id, account_id, kind, money, tokens, steps, note)"
            " SELECT now(), %s, %s, 'guard', 0, 0, 0, 'Line ' || n FROM generate_series(1, 5100) AS n",
            [world.organisation.pk, account],
        )
    rows = rows_of(signed_in(finn), reverse("budget", args=[account]) + "?show=limits&format=csv")
    told = [row["description"].removeprefix("Loop guard set: ") for row in rows if row["kind"] == "guard"]
    assert told == [f"Line {number}" for number in range(5100, 0, -1)]


def test_every_entry_and_every_action_is_in_its_file(
    busy: Any, finn: User, alice: User, signed_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "LARGEST_PAGE", 3)
    monkeypatch.setattr(governance, "MAX_PAGE", 2)
    number = Entry.objects.filter(organisation=busy.organisation).count()
    browser = signed_in(finn)
    assert len(rows_of(browser, reverse("audit") + "?format=csv")) >= number > 3
    path = reverse("mission-actions-csv", args=[busy.mission.pk])
    assert len(rows_of(signed_in(alice), path)) == Action.objects.filter(mission_id=busy.mission.pk).count() > 2


def test_lines_that_are_not_counted_yet_stand_beside_the_total_of_the_page(
    world: Any, finn: User, signed_in: SignIn
) -> None:
    spend(world, "0.50")
    refresh_changed()
    spend(world, "0.25", fold=False)
    browser, path = signed_in(finn), reverse("cost-mission", args=[world.mission.pk])
    *lines, later, total = rows_of(browser, path + "?format=csv")
    assert (later["id"], Decimal(later["money"])) == ("Not counted yet", Decimal("0.25"))
    assert (total["id"], Decimal(total["money"])) == ("Total", Decimal("0.50"))
    assert sum(Decimal(line["money"]) for line in lines) == Decimal("0.75")
    headline = page(browser, path).split('class="headline">')[1].split("</div>")[0]
    assert "$0.50" in headline
    fold_all()
    *lines, total = rows_of(browser, path + "?format=csv")
    assert Decimal(total["money"]) == sum(Decimal(line["money"]) for line in lines) == Decimal("0.75")


@pytest.mark.django_db(transaction=True)
def test_missions_of_a_goal_are_read_in_pieces_also_outside_a_transaction(
    world: Any, as_finn: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("budgets.costs.selectors._CHUNK", 1)
    spend(world, "0.50")
    refresh_changed()
    today = now().date()
    goal = CostMission.objects.get(pk=world.mission.pk).goal
    span = Span(today - timedelta(days=1), today + timedelta(days=1))
    (row,) = every_mission_of_goal(as_finn, span, goal)
    assert (row.mission_id, row.money) == (world.mission.pk, Decimal("0.50"))
