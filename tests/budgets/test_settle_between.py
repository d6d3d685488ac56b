"""A hold settled in one go with what locks it and what goes with it: all of it, or nothing."""

from __future__ import annotations

import uuid
from decimal import Decimal

import pytest
from django.db import DataError, connection

from budgets.models import Hold
from budgets.port import LedgerPort
from governance.types import Statement
from tests.budgets.conftest import Tree, window, wrong_sums

pytestmark = pytest.mark.django_db


def _settle(hold_id: uuid.UUID | None, money: str = "0.05", mark: str = "run") -> bool:
    return LedgerPort().settle_between(
        money=Decimal(money),
        locked=Statement(
            "SELECT hold_id FROM (VALUES (%s::uuid)) AS one (hold_id) WHERE hold_id IS NOT NULL", (hold_id,)
        ),
        then=Statement("SELECT set_config('remit.then', %s, false)", (mark,)),
    )


def _ran() -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('remit.then', true)")
        return str(cursor.fetchone()[0])


def _spending(tree: Tree, money: str = "0.05") -> uuid.UUID:
    hold_id = tree.held(money, tokens=7)
    LedgerPort().dispatch(hold_id=hold_id)
    return hold_id


def test_what_is_being_spent_is_charged_and_the_rest_given_back(tree: Tree) -> None:
    assert _settle(_spending(tree), "0.02", mark="charged")
    row = window(tree.mission)
    assert (row.held_money, row.spent_money, row.spent_tokens) == (0, Decimal("0.02"), 7)
    assert _ran() == "charged"
    assert wrong_sums() == []


def test_more_than_was_held_is_left_to_the_way_that_knows_overruns(tree: Tree) -> None:
    hold_id = _spending(tree)
    assert not _settle(hold_id, "0.06", mark="overrun")
    assert Hold.objects.get(pk=hold_id).state == "dispatched"
    assert window(tree.mission).held_money == Decimal("0.05")
    assert _ran() != "overrun"


@pytest.mark.parametrize("ended", ["held", "voided", "settled"])
def test_a_hold_in_another_state_is_left_as_it_is(tree: Tree, ended: str) -> None:
    hold_id = tree.held("0.05")
    port = LedgerPort()
    if ended == "voided":
        port.void(hold_id=hold_id)
    if ended == "settled":
        port.dispatch(hold_id=hold_id)
        port.settle(hold_id=hold_id, money=None)
    before = window(tree.mission)
    assert not _settle(hold_id, mark=ended)
    after = window(tree.mission)
    assert (after.held_money, after.spent_money) == (before.held_money, before.spent_money)
    assert Hold.objects.get(pk=hold_id).state == ended
    assert _ran() != ended
    assert wrong_sums() == []


def test_nothing_is_settled_where_nothing_was_locked(tree: Tree) -> None:
    _spending(tree)
    assert not _settle(None, mark="unlocked")
    assert window(tree.mission).held_money == Decimal("0.05")
    assert _ran() != "unlocked"


@pytest.mark.django_db(transaction=True)
def test_what_fails_with_it_leaves_the_hold_and_the_connection_as_they_were_and_is_no_fault_of_an_amount(
    tree: Tree,
) -> None:
    hold_id = _spending(tree)
    locked = Statement("SELECT id AS hold_id FROM budgets_hold WHERE id = %s FOR UPDATE", (hold_id,))
    with pytest.raises(DataError):
        LedgerPort().settle_between(money=Decimal("0.02"), locked=locked, then=Statement("SELECT 1 / (%s::int)", (0,)))
    row = window(tree.mission)
    assert (row.held_money, row.spent_money) == (Decimal("0.05"), 0)
    assert _settle(hold_id, "0.02", mark="again")
    assert window(tree.mission).spent_money == Decimal("0.02")
    assert wrong_sums() == []
