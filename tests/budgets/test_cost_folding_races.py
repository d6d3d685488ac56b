"""Folding costs beside other transactions: no line is lost, and none counts twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from decimal import Decimal

import pytest
from django.db import connection, transaction

from budgets import services
from budgets.costs.folding import fold_all
from budgets.costs.models import CostDay, CostMission
from budgets.types import Level, WindowKind
from controlplane.common.ids import new_id
from tests.budgets.conftest import ROOMY, Tree

from .cost_sums import charge, folded_sums, journal_sums


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
