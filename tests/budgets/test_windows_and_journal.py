"""What the database itself keeps true of windows and the journal, and when a window ends."""

from __future__ import annotations

import uuid
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.db.utils import IntegrityError, ProgrammingError

from budgets import services
from budgets.models import Window
from budgets.types import Amounts, WindowKind
from controlplane.common.ids import new_id
from tests.budgets.conftest import Tree, window, wrong_sums

pytestmark = pytest.mark.django_db


def test_a_window_never_goes_beyond_its_limit_even_by_hand(tree: Tree) -> None:
    tree.held("1")
    with pytest.raises(IntegrityError), transaction.atomic():
        Window.objects.filter(account_id=tree.mission).update(held_money=Decimal(1001))
    with pytest.raises(IntegrityError), transaction.atomic():
        Window.objects.filter(account_id=tree.mission).update(spent_money=Decimal(-1))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE budgets_journal SET money = 0",
        "DELETE FROM budgets_journal",
        "TRUNCATE budgets_journal",
        "UPDATE budgets_posting SET money = 0",
        "DELETE FROM budgets_posting",
        "TRUNCATE budgets_posting",
        "UPDATE budgets_allocation SET money = 0",
        "DELETE FROM budgets_allocation",
    ],
)
def test_the_journal_refuses_to_be_changed(tree: Tree, statement: str) -> None:
    services.settle(hold_id=tree.held("1"))
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        with pytest.raises(IntegrityError, match="append-only"):
            cursor.execute(statement)


def test_a_month_of_the_journal_can_not_be_emptied_on_its_own(tree: Tree) -> None:
    services.settle(hold_id=tree.held("1"))
    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT tableoid::regclass::text FROM budgets_journal")
        months = [row[0] for row in cursor.fetchall()]
    assert months
    for month in months:
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {month}")


def test_a_posting_without_its_other_side_is_refused_at_commit(tree: Tree) -> None:
    services.settle(hold_id=tree.held("1"))
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO budgets_posting SELECT 0, side, at, account_id, 1, 0, 0 FROM budgets_posting LIMIT 1"
        )
        with pytest.raises(IntegrityError, match="do not balance"):
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def test_the_journals_months_are_made_ahead_and_again_changes_nothing(tree: Tree) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT budgets_make_partitions(12)")
        assert cursor.fetchone() == (0,)
        cursor.execute("SELECT budgets_make_partitions(1, now() + interval '5 years')")
        assert cursor.fetchone() == (2,)


def test_a_month_without_a_table_refuses_instead_of_losing_a_line(tree: Tree) -> None:
    with pytest.raises((IntegrityError, ProgrammingError)), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "SELECT budgets_reserve(%s, %s, %s, 1, 0, 1, 'USD', '', 60, p_at => now() + interval '9 years')",
            [new_id(), tree.organisation_id, tree.mission],
        )
    assert window(tree.mission).held_money == 0


def test_ten_million_fractions_of_a_cent_add_up_exactly(tree: Tree) -> None:
    price, number = Decimal("0.00000015"), 10_000_000
    tree.limit(tree.mission, money=price * number)
    hold_id = tree.held(str(price), steps=0)
    services.settle(hold_id=hold_id)
    with connection.cursor() as cursor:
        # The same increment the functions make, ten million times, summed by the database.
        cursor.execute(
            "UPDATE budgets_window SET spent_money = spent_money"
            " + (SELECT sum(%s::numeric(28, 12)) FROM generate_series(1, %s)) WHERE account_id = %s",
            [price, number - 1, tree.mission],
        )
    assert window(tree.mission).spent_money == Decimal("1.5")
    assert tree.reserve("0.000000000001", steps=0)[1] is not None


def test_a_day_ends_at_midnight_of_the_organisation(northwind: object, tree: Tree) -> None:
    northwind.time_zone = "Europe/Paris"  # type: ignore[attr-defined]
    northwind.save()  # type: ignore[attr-defined]
    tree.limit(tree.mission, WindowKind.DAY, money=Decimal(10))

    def reserve_at(moment: str) -> uuid.UUID:
        hold_id = new_id()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT (budgets_reserve(%s, %s, %s, 4, 0, 1, 'USD', '', 86400, p_at => %s)).outcome",
                [hold_id, tree.organisation_id, tree.mission, moment],
            )
            assert cursor.fetchone() == ("held",)
        return hold_id

    with connection.cursor() as cursor:
        cursor.execute("SELECT budgets_make_partitions(24, '2026-10-01')")
    # 23:59:59 and 00:00:01 in Paris, in summer time; settled long after midnight.
    before, after = reserve_at("2026-10-24T21:59:59Z"), reserve_at("2026-10-24T22:00:01Z")
    for hold_id in (before, after):
        services.settle(hold_id=hold_id)
    days = list(
        Window.objects.filter(account_id=tree.mission, kind="day", spent_money__gt=0)
        .order_by("starts_at")
        .values_list("starts_at", "ends_at", "spent_money")
    )
    assert [(start.isoformat(), end.isoformat(), spent) for start, end, spent in days] == [
        ("2026-10-23T22:00:00+00:00", "2026-10-24T22:00:00+00:00", 4),
        # The clocks go back on the 25th: this day has 25 hours.
        ("2026-10-24T22:00:00+00:00", "2026-10-25T23:00:00+00:00", 4),
    ]
    assert wrong_sums() == []


@pytest.mark.parametrize(
    ("zone", "kind", "noon", "start", "end"),
    [
        # In Santiago the clocks go from 24:00 to 1:00: the 6th of September begins at one.
        ("America/Santiago", "day", "2026-09-06T16:00:00Z", "2026-09-06T04:00:00+00:00", "2026-09-07T03:00:00+00:00"),
        # So they do in Beirut and in Cairo, where the month that holds such a day ends as any other.
        ("Asia/Beirut", "day", "2027-03-28T10:00:00Z", "2027-03-27T22:00:00+00:00", "2027-03-28T21:00:00+00:00"),
        ("Africa/Cairo", "day", "2027-04-30T10:00:00Z", "2027-04-29T22:00:00+00:00", "2027-04-30T21:00:00+00:00"),
        ("Africa/Cairo", "month", "2027-04-30T10:00:00Z", "2027-03-31T22:00:00+00:00", "2027-04-30T21:00:00+00:00"),
    ],
)
def test_day_without_a_midnight_ends_at_the_next_one(zone: str, kind: str, noon: str, start: str, end: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT s, budgets_ends_at(%(kind)s, %(zone)s, s)"
            " FROM (SELECT budgets_starts_at(%(kind)s, %(zone)s, %(noon)s::timestamptz) AS s) AS began",
            {"kind": kind, "zone": zone, "noon": noon},
        )
        began, ended = cursor.fetchone()
    assert (began.isoformat(), ended.isoformat()) == (start, end)


def test_no_limit_means_the_levels_above_decide(tree: Tree) -> None:
    tree.limit(tree.mission)
    tree.limit(tree.organisation, money=Decimal(2))
    _, refusal = tree.reserve("3")
    assert refusal is not None
    assert refusal.account_id == tree.organisation
    services.settle(hold_id=tree.held("1"), amounts=Amounts(Decimal(5)))
    row = window(tree.mission)
    assert (row.limit_money, row.spent_money, row.overrun_money, row.frozen) == (None, 5, 0, False)
    assert window(tree.organisation).overrun_money == 3
    assert wrong_sums() == []
