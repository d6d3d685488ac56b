"""What the pages of costs read: what a goal cost, waste, what was spent outside missions, and whatever differs."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest

from budgets import services
from budgets.costs import facts
from budgets.costs import selectors as costs
from budgets.costs.checking import check_all
from budgets.costs.folding import fold_all
from budgets.costs.models import CostDay
from budgets.costs.types import Span
from budgets.types import ActivityDay, Level, MissionFacts, Standing, WindowKind
from controlplane.common.clock import now
from controlplane.common.ids import new_id
from controlplane.tenancy.models import Organisation, Team
from controlplane.tenancy.types import Principal
from tests.budgets.conftest import ROOMY, Tree, mission_of

from .cost_sums import charge

EVER = Span((now() - timedelta(days=400)).date(), (now() + timedelta(days=400)).date())


class Told:
    """A book of missions whose pages the test writes."""

    def __init__(self) -> None:
        self.pages: dict[uuid.UUID, MissionFacts] = {}

    def stamps(self) -> dict[uuid.UUID, str]:
        return {key: page.stamp for key, page in self.pages.items()}

    def facts(self, mission_ids: object) -> list[MissionFacts]:
        return [self.pages[key] for key in mission_ids if key in self.pages]  # type: ignore[attr-defined]

    def write(self, tree: Tree, team: Team, standing: Standing = Standing.OPEN, **changes: object) -> uuid.UUID:
        mission = mission_of(tree.mission)
        values: dict[str, object] = {
            "mission_id": mission,
            "organisation_id": tree.organisation_id,
            "team_id": team.pk,
            "agent_id": new_id(),
            "goal": "chase",
            "goal_name": "Chase invoices",
            "title": "November",
            "standing": standing,
            "decided_on": None if standing == Standing.OPEN else now().date(),
            "stamp": standing.value,
        }
        self.pages[mission] = MissionFacts(**{**values, **changes})  # type: ignore[arg-type]
        return mission


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()
    monkeypatch.setattr(facts, "_BOOKS", [told])
    return told


def test_money_counts_for_what_came_of_its_goal(tree: Tree, team: Team, book: Told, as_finn: Principal) -> None:
    book.write(tree, team, days=[ActivityDay(now().date(), 2, 1, 9, 3, 90)])
    charge(tree, "0.30")
    fold_all()
    (goal,) = costs.goal_rows(as_finn, EVER)
    assert (goal.name, goal.money[Standing.OPEN], goal.cost_each, goal.missions) == (
        "Chase invoices",
        Decimal("0.30"),
        None,
        1,
    )
    book.write(tree, team, Standing.ACCEPTED, days=[ActivityDay(now().date(), 2, 1, 9, 3, 90)])
    facts.refresh_changed()
    (goal,) = costs.goal_rows(as_finn, EVER)
    assert goal.money[Standing.ACCEPTED] == goal.cost_each == Decimal("0.30")
    assert (goal.accepted, goal.effort.attempts, goal.effort.retries, goal.effort.denied) == (1, 2, 1, 3)
    assert goal.minutes_each == Decimal("1.5")


def test_waste_is_in_the_cost_of_what_was_accepted(
    northwind: Organisation, tree: Tree, team: Team, book: Told, as_finn: Principal
) -> None:
    book.write(tree, team, Standing.ACCEPTED)
    wasted = services.open_account(
        actor=tree.system,
        organisation_id=northwind.pk,
        team_id=team.pk,
        parent_id=tree.agent,
        level=Level.MISSION,
        name="Stopped",
        subject_type="mission",
        subject_id=new_id(),
        limits=ROOMY,
        window=WindowKind.TOTAL,
    )
    stopped = mission_of(wasted)
    book.pages[stopped] = MissionFacts(
        stopped,
        northwind.pk,
        team.pk,
        new_id(),
        "chase",
        "Chase invoices",
        "Stopped",
        Standing.WASTE,
        now().date(),
        "w",
    )
    charge(tree, "0.30")
    hold = tree.held("0.10", account=wasted)
    services.settle(hold_id=hold)
    fold_all()
    facts.refresh_changed()
    (goal,) = costs.goal_rows(as_finn, EVER)
    assert (goal.cost_each, goal.waste_share) == (Decimal("0.40"), Decimal(25))


def test_what_was_spent_outside_missions_is_not_lost(tree: Tree, book: Told, as_finn: Principal) -> None:
    services.settle(hold_id=tree.held("0.10", account=tree.team))
    fold_all()
    (goal,) = costs.goal_rows(as_finn, EVER)
    assert (goal.goal, goal.outside, goal.total, goal.judged) == ("outside", Decimal("0.10"), Decimal("0.10"), 0)
    assert [row.money for row in costs.outside_missions(as_finn, EVER)] == [Decimal("0.10")]


def test_rows_and_ledger_are_equal_even_before_the_fold(tree: Tree, as_finn: Principal) -> None:
    charge(tree, "0.30")
    fold_all()
    charge(tree, "0.000000000001")
    check = costs.report(as_finn, EVER).check
    assert (check.rows, check.pending, check.ledger) == (
        Decimal("0.30"),
        Decimal("0.000000000001"),
        Decimal("0.300000000001"),
    )
    assert not check.differs


def test_a_sum_that_was_tampered_with_is_told_of(tree: Tree, as_finn: Principal) -> None:
    charge(tree, "0.30")
    fold_all()
    CostDay.objects.update(money=Decimal("0.300000000001"))
    check = costs.report(as_finn, EVER).check
    assert (check.differs, check.difference) == (True, Decimal("0.000000000001"))
    (wrong,) = check_all() or []
    assert (wrong.journal, wrong.folded) == ("0.300000000000", "0.300000000001")
    assert costs.report(as_finn, EVER).check.wrong_days == [str(now().date())]


def test_a_builder_sees_only_their_teams(
    tree: Tree,
    other_team: Team,
    northwind: Organisation,
    open_tree: Callable[..., Tree],
    as_alice: Principal,
    as_finn: Principal,
    as_charlie: Principal,
) -> None:
    charge(tree, "0.30")
    elsewhere = services.open_account(
        actor=tree.system,
        organisation_id=northwind.pk,
        team_id=other_team.pk,
        parent_id=tree.organisation,
        level=Level.TEAM,
        name="Logistics",
        subject_type="team",
        subject_id=new_id(),
        limits=ROOMY,
        window=WindowKind.TOTAL,
    )
    services.settle(hold_id=tree.held("5.00", account=elsewhere))
    fold_all()
    assert costs.report(as_finn, EVER).total.total == Decimal("5.30")
    alices = costs.report(as_alice, EVER)
    assert (alices.total.total, alices.check.ledger, alices.check.differs) == (Decimal("0.30"), Decimal("0.30"), False)
    assert costs.report(as_charlie, EVER).goals == []
