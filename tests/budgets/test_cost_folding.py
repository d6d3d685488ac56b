"""The sums of costs: equal to the journal whatever happens, folded once, on the day of the work."""

from __future__ import annotations

import uuid
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budgets import services, tasks
from budgets.costs import folding
from budgets.costs.checking import check_all
from budgets.costs.folding import fold_all
from budgets.costs.models import CostDay, CostState
from budgets.models import Hold
from budgets.types import Amounts
from controlplane.common.clock import now
from controlplane.tenancy.models import Organisation
from tests.budgets.conftest import Tree

from .cost_sums import charge, folded_sums, journal_sums

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
