"""The sums of costs: equal to the journal whatever happens, folded once, told of whatever differs."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budgets import services, tasks
from budgets.costs import facts, folding
from budgets.costs import selectors as costs
from budgets.costs.checking import check_all
from budgets.costs.folding import fold_all
from budgets.costs.models import CostDay, CostMission, CostState
from budgets.costs.types import Span
from budgets.models import Hold
from budgets.types import ActivityDay, Amounts, Level, MissionFacts, Standing, WindowKind
from controlplane.common.clock import now
from controlplane.common.ids import new_id
from controlplane.tenancy.models import Organisation, Team
from controlplane.tenancy.types import Principal
from tests.budgets.conftest import ROOMY, Tree, mission_of

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


def journal_sums(organisation_id: uuid.UUID) -> dict[object, tuple[Decimal, int, int]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT account_id, sum(money), sum(tokens), sum(steps) FROM budgets_journal"
            " WHERE organisation_id = %s AND kind IN ('settle', 'correct') GROUP BY account_id",
            [organisation_id],
        )
        return {row[0]: (row[1], int(row[2]), int(row[3])) for row in cursor.fetchall()}


def folded_sums(organisation_id: uuid.UUID) -> dict[object, tuple[Decimal, int, int]]:
    found: dict[object, tuple[Decimal, int, int]] = {}
    for row in CostDay.objects.filter(organisation_id=organisation_id):
        money, tokens, steps = found.get(row.account_id, (Decimal(0), 0, 0))
        found[row.account_id] = (money + row.money, tokens + row.tokens, steps + row.steps)
    return found


def charge(tree: Tree, money: str, *, held: str | None = None) -> uuid.UUID:
    hold = tree.held(held or money)
    services.settle(hold_id=hold, amounts=Amounts(Decimal(money), 0, 1))
    return hold


# One event of a random history: what happens to a hold, its amount, where it is held, how long ago.
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["settle", "more", "void", "provisional", "late", "leave", "fold"]),
        st.decimals(min_value="0.000000000001", max_value="2", places=12),
        st.sampled_from(["mission", "agent", "team"]),
        st.integers(min_value=0, max_value=40),
    ),
    max_size=14,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=EVENTS)
def test_after_any_history_the_sums_equal_the_journal_to_the_last_place(tree: Tree, events: list) -> None:
    with suppress(_Undone), transaction.atomic():
        _live_through(tree, events)
        assert not fold_all().waits
        assert folded_sums(tree.organisation_id) == journal_sums(tree.organisation_id)
        assert check_all() == []
        raise _Undone


class _Undone(Exception):
    """Takes an example's rows back."""


def _live_through(tree: Tree, events: list) -> None:
    for what, money, level, days_ago in events:
        if what == "fold":
            fold_all()
            continue
        hold = tree.held(str(money), account=getattr(tree, level))
        Hold.objects.filter(pk=hold).update(created_at=now() - timedelta(days=days_ago))
        if what == "settle":
            services.settle(hold_id=hold, amounts=Amounts(_part(money, 2), 3, 1))
        elif what == "more":
            services.settle(hold_id=hold, amounts=Amounts(money * 3, 5, 2))
        elif what == "void":
            services.void(hold_id=hold)
        elif what == "provisional":
            _silent(hold)
        elif what == "late":
            _silent(hold)
            fold_all()
            services.settle(hold_id=hold, amounts=Amounts(_part(money, 3), 1, 1))


def _part(money: Decimal, parts: int) -> Decimal:
    return (money / parts).quantize(Decimal("0.000000000001"))


def _silent(hold: uuid.UUID) -> None:
    """Dispatched, and nobody reports: charged as held, for the time being."""
    from budgets.sweeping import sweep_all

    services.dispatch(hold_id=hold)
    Hold.objects.filter(pk=hold).update(expires_at=now() - timedelta(seconds=1))
    sweep_all()


def test_a_late_report_corrects_the_day_of_the_work(tree: Tree) -> None:
    hold = tree.held("1.00")
    worked = now() - timedelta(days=3)
    Hold.objects.filter(pk=hold).update(created_at=worked)
    _silent(hold)
    fold_all()
    assert CostDay.objects.get().money == Decimal("1.00")
    services.settle(hold_id=hold, amounts=Amounts(Decimal("0.40"), 0, 1))
    fold_all()
    row = CostDay.objects.get()
    assert (row.day, row.money, row.lines) == (worked.date(), Decimal("0.40"), 2)


def test_days_are_those_of_the_organisation(northwind: Organisation, tree: Tree) -> None:
    Organisation.objects.filter(pk=northwind.pk).update(time_zone="Pacific/Auckland")
    hold = charge(tree, "0.10")
    Hold.objects.filter(pk=hold).update(created_at="2026-11-20T12:30:00Z")
    fold_all()
    assert str(CostDay.objects.get().day) == "2026-11-21"


def test_folding_twice_changes_nothing(tree: Tree) -> None:
    charge(tree, "0.30")
    assert fold_all().lines == 1
    assert fold_all().lines == 0
    assert CostDay.objects.get().money == Decimal("0.30")


def test_a_fold_that_dies_neither_loses_nor_doubles(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the sums were written and before it was noted how far they go."""
    charge(tree, "0.30")

    def killed(windows: object) -> int:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(folding.alerts, "raise_for", killed)
        with pytest.raises(SystemExit):
            fold_all()
    assert not CostDay.objects.exists()
    charge(tree, "0.20")
    fold_all()
    assert folded_sums(tree.organisation_id) == journal_sums(tree.organisation_id)


def test_the_timer_folds_checks_the_first_time_and_says_when_something_is_wrong(tree: Tree) -> None:
    charge(tree, "0.30")
    tasks.fold_costs()
    state = CostState.objects.get()
    assert (state.checked_id, state.wrong) == (state.folded_id, [])
    CostDay.objects.update(money=Decimal(1))
    tasks.refresh_costs()
    tasks.fold_costs()  # the next check is in an hour
    assert CostState.objects.get().wrong == []
    tasks.check_costs()
    assert [row["folded"] for row in CostState.objects.get().wrong] == ["1.000000000000"]


def test_small_batches_fold_the_same(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "BATCH", 3)
    for number in range(1, 9):
        charge(tree, f"0.0{number}")
    fold_all(most_batches=10**6)
    assert folded_sums(tree.organisation_id) == journal_sums(tree.organisation_id)


def test_a_database_restored_elsewhere_goes_on_counting(tree: Tree) -> None:
    """Writers noted on another server are nobody here."""
    charge(tree, "0.30")
    fold_all()
    charge(tree, "0.20")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sequence_last_value(pg_get_serial_sequence('budgets_journal', 'id')::regclass)")
        drawn = cursor.fetchone()[0]
    CostState.objects.filter(pk=1).update(noted_id=drawn, noted_writers=["999/123456"])
    fold_all()
    assert folded_sums(tree.organisation_id) == journal_sums(tree.organisation_id)


def test_starting_anew_gives_the_same_sums(tree: Tree) -> None:
    charge(tree, "0.30")
    fold_all()
    before = folded_sums(tree.organisation_id)
    CostDay.objects.update(money=Decimal(9))
    with pytest.raises(CommandError, match="1 days differ"):
        call_command("costs", "check")
    call_command("costs", "rebuild")
    assert folded_sums(tree.organisation_id) == before
    assert check_all() == []


# What the pages read --------------------------------------------------------------------------------------------------


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


# Other transactions ---------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_line_with_a_smaller_number_that_commits_later_is_not_lost(tree: Tree) -> None:
    """The first transaction draws its line and stays open; the second one's line is there long before."""
    drawn, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        try:
            with transaction.atomic():
                charge(tree, "0.10")
                drawn.set()
                go_on.wait(20)
        finally:
            connection.close()

    fold_all()
    other = threading.Thread(target=slow)
    # The second tree's rows: the first transaction keeps those of its own.
    own = services.open_account(
        actor=tree.system,
        organisation_id=tree.organisation_id,
        team_id=None,
        parent_id=None,
        level=Level.OTHER,
        name="Apart",
        subject_type="apart",
        subject_id=new_id(),
        limits=ROOMY,
        window=WindowKind.TOTAL,
    )
    other.start()
    assert drawn.wait(20)
    services.settle(hold_id=tree.held("0.20", account=own))
    first = fold_all()
    assert (first.lines, first.waits) == (0, True)
    go_on.set()
    other.join()
    fold_all()
    assert folded_sums(tree.organisation_id) == journal_sums(tree.organisation_id)
    assert sum(row[0] for row in folded_sums(tree.organisation_id).values()) == Decimal("0.30")


@pytest.mark.django_db(transaction=True)
def test_many_writers_and_folders_at_once_count_every_line_once(tree: Tree) -> None:
    stop = threading.Event()
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)
            finally:
                connection.close()

        return run

    def write() -> None:
        for number in range(25):
            hold = tree.held("0.01")
            services.settle(hold_id=hold) if number % 5 else services.void(hold_id=hold)

    def fold() -> None:
        while not stop.is_set():
            fold_all()

    folders = [threading.Thread(target=guarded(fold)) for _ in range(2)]
    writers = [threading.Thread(target=guarded(write)) for _ in range(3)]
    for thread in (*folders, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in folders:
        thread.join()
    assert errors == []
    fold_all()
    assert folded_sums(tree.organisation_id) == journal_sums(tree.organisation_id)
    assert CostDay.objects.get().lines == 60
    assert CostMission.objects.count() == 0
