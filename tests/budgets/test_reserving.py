"""Reserving: at every level, once, in one statement, one by one and in batches, and what is no amount."""

from __future__ import annotations

import uuid
from decimal import Decimal

import pytest
from django.db import transaction

from budgets import calls, services
from budgets.models import Hold, JournalEntry
from budgets.port import LedgerPort
from budgets.types import Amounts, HoldState, Reserve
from controlplane.common.errors import RemitError
from controlplane.common.ids import new_id
from governance.types import BudgetRequest, HoldRefused
from tests.budgets.conftest import Tree, window, wrong_sums

pytestmark = pytest.mark.django_db


def _state(hold_id: uuid.UUID) -> str:
    return Hold.objects.values_list("state", flat=True).get(pk=hold_id)


def test_a_reserve_holds_the_whole_vector_at_every_level(tree: Tree) -> None:
    tree.held("2.5", tokens=300, steps=2)
    for account in tree.levels:
        row = window(account)
        assert (row.held_money, row.held_tokens, row.held_steps) == (Decimal("2.5"), 300, 2)
    assert wrong_sums() == []


def test_the_gates_reserve_is_exactly_one_statement(tree: Tree, django_assert_num_queries: object) -> None:
    request = BudgetRequest(account_id=tree.mission, money=Decimal(1), currency="USD", signature=b"x")
    with django_assert_num_queries(1):  # type: ignore[operator]
        refused = LedgerPort().reserve(
            hold_id=new_id(), request=request, organisation_id=tree.organisation_id, ttl_seconds=60
        )
    assert refused is None


@pytest.mark.parametrize("position", range(5))
def test_the_tight_level_is_named_and_no_other_keeps_anything(tree: Tree, position: int) -> None:
    tight = tree.levels[position]
    tree.limit(tight, money=Decimal("0.40"))
    hold_id, refusal = tree.reserve("0.50")
    assert refusal is not None
    assert refusal.reason_code == "budget.exhausted"
    assert refusal.account_id == tight
    assert refusal.unit == "money"
    assert refusal.left == Decimal("0.40")
    assert "0.40 USD left in total; this needs 0.50" in refusal.message
    assert refusal.remedies
    assert not Hold.objects.filter(pk=hold_id).exists()
    assert not JournalEntry.objects.filter(hold_id=hold_id).exists()
    assert all(window(account).held_money == 0 for account in tree.levels)


@pytest.mark.parametrize(("unit", "limits"), [("tokens", {"tokens": 99}), ("steps", {"steps": 0})])
def test_tokens_and_steps_are_limits_like_money(tree: Tree, unit: str, limits: dict[str, int]) -> None:
    tree.limit(tree.agent, **limits)
    _, refusal = tree.reserve("1", tokens=100, steps=1)
    assert refusal is not None
    assert (refusal.unit, refusal.level) == (unit, "agent")


def test_a_limit_is_used_up_to_its_last_unit(tree: Tree) -> None:
    tree.limit(tree.mission, money=Decimal("0.3"))
    for _ in range(3):
        tree.held("0.1")
    _, refusal = tree.reserve("0.000000000001")
    assert refusal is not None
    assert refusal.left == 0


def test_ten_replays_are_charged_once(tree: Tree) -> None:
    hold_id = new_id()
    for _ in range(10):
        assert tree.reserve("1", hold_id=hold_id)[1] is None
    services.dispatch(hold_id=hold_id)
    charged = [services.settle(hold_id=hold_id, amounts=Amounts(Decimal("0.75"), 0, 1)) for _ in range(10)]
    assert [result.replayed for result in charged] == [False] + [True] * 9
    assert {result.charged.money for result in charged} == {Decimal("0.75")}
    assert window(tree.organisation).spent_money == Decimal("0.75")
    assert JournalEntry.objects.filter(hold_id=hold_id).count() == 3
    assert wrong_sums() == []


def test_a_replay_is_answered_even_when_nothing_is_left(tree: Tree) -> None:
    tree.limit(tree.mission, money=Decimal(1))
    hold_id = tree.held("1")
    assert tree.reserve("1")[1] is not None
    assert tree.reserve("1", hold_id=hold_id)[1] is None


@pytest.mark.parametrize("other", [{"money": "2"}, {"steps": 2}, {"tokens": 1}, {"signature": b"other"}])
def test_another_request_under_the_same_id_conflicts(tree: Tree, other: dict[str, object]) -> None:
    hold_id = tree.held("1")
    with pytest.raises(RemitError) as refused:
        tree.reserve(hold_id=hold_id, **{"money": "1", **other})  # type: ignore[arg-type]
    assert (refused.value.code, refused.value.status) == ("ledger.hold_conflict", 409)
    assert window(tree.mission).held_money == 1


def test_another_organisations_hold_id_conflicts_and_tells_nothing(
    tree: Tree, open_tree: object, elsewhere: object, make_person: object
) -> None:
    from controlplane.tenancy.models import Team

    theirs = open_tree(elsewhere, Team.objects.create(organisation=elsewhere, name="T", slug="t"))  # type: ignore[operator]
    hold_id = tree.held("1")
    with pytest.raises(RemitError, match=r"ledger.hold_conflict"):
        theirs.reserve("1", hold_id=hold_id)
    refused = services.reserve(
        hold_id=new_id(),
        account_id=tree.mission,
        organisation_id=theirs.organisation_id,
        amounts=Amounts(Decimal(1)),
        ttl_seconds=60,
    )
    assert refused is not None
    assert refused.reason_code == "budget.unknown_account"


@pytest.mark.parametrize(
    "amounts",
    [
        Amounts(Decimal(-1)),
        Amounts(Decimal("NaN")),
        Amounts(Decimal("Infinity")),
        Amounts(Decimal("1e16")),
        Amounts(Decimal("0.0000000000001")),
        Amounts(Decimal(0), -1),
        Amounts(Decimal(0), 0, -1),
        Amounts(Decimal(0), 2**63),
    ],
)
def test_amounts_that_are_no_amounts_are_refused(tree: Tree, amounts: Amounts) -> None:
    with pytest.raises(RemitError) as refused, transaction.atomic():
        services.reserve(
            hold_id=new_id(),
            account_id=tree.mission,
            organisation_id=tree.organisation_id,
            amounts=amounts,
            ttl_seconds=60,
        )
    assert refused.value.code == "ledger.amount_invalid"
    assert Hold.objects.count() == 0
    hold_id = tree.held("1")
    with pytest.raises(RemitError, match=r"ledger.amount_invalid"), transaction.atomic():
        services.settle(hold_id=hold_id, amounts=amounts)
    assert _state(hold_id) == HoldState.HELD


def test_another_currency_is_refused(tree: Tree) -> None:
    request = BudgetRequest(account_id=tree.mission, money=Decimal(1), currency="EUR")
    refused = LedgerPort().reserve(
        hold_id=new_id(), request=request, organisation_id=tree.organisation_id, ttl_seconds=60
    )
    assert isinstance(refused, HoldRefused)
    assert refused.reason_code == "budget.currency"
    assert "USD" in refused.message


def test_a_batch_answers_each_item_in_its_place(tree: Tree) -> None:
    tree.limit(tree.mission, money=Decimal(5))
    seen = tree.held("1")
    items = [
        Reserve(new_id(), tree.mission, Amounts(Decimal(2), 0, 1)),
        Reserve(seen, tree.mission, Amounts(Decimal(1), 0, 1)),
        Reserve(new_id(), tree.mission, Amounts(Decimal(4), 0, 1)),
        Reserve(new_id(), new_id(), Amounts(Decimal(1))),
        Reserve(new_id(), tree.mission, Amounts(Decimal(2), 0, 1)),
        Reserve(new_id(), tree.agent, Amounts(Decimal(4), 0, 1)),
    ]
    answers = services.reserve_batch(organisation_id=tree.organisation_id, items=items, ttl_seconds=60)
    codes = [answer.refusal.reason_code if answer.refusal else "" for answer in answers]
    assert codes == ["", "", "budget.exhausted", "budget.unknown_account", "", ""]
    assert [answer.replayed for answer in answers] == [False, True, False, False, False, False]
    assert window(tree.mission).held_money == 5
    assert window(tree.agent).held_money == 9
    assert wrong_sums() == []


def test_a_batch_that_fits_is_one_statement_and_one_row_per_level(
    tree: Tree, django_assert_num_queries: object
) -> None:
    items = [Reserve(new_id(), tree.mission, Amounts(Decimal("0.1"), 10, 1), signature=bytes([n])) for n in range(50)]
    with django_assert_num_queries(1):  # type: ignore[operator]
        calls.reserve_batch(organisation_id=tree.organisation_id, currency="USD", items=items, ttl_seconds=60)
    for account in tree.levels:
        row = window(account)
        assert (row.held_money, row.held_tokens, row.held_steps) == (Decimal(5), 500, 50)
    assert Hold.objects.count() == 50
    assert JournalEntry.objects.filter(kind="reserve", hold_id__in=[item.hold_id for item in items]).count() == 50
    again = services.reserve_batch(organisation_id=tree.organisation_id, items=items, ttl_seconds=60)
    assert all(answer.replayed and answer.refusal is None for answer in again)
    assert wrong_sums() == []


def test_one_id_twice_in_a_batch_is_held_once(tree: Tree) -> None:
    item = Reserve(new_id(), tree.mission, Amounts(Decimal(1), 0, 1))
    answers = services.reserve_batch(organisation_id=tree.organisation_id, items=[item, item], ttl_seconds=60)
    assert [answer.replayed for answer in answers] == [False, True]
    assert window(tree.mission).held_money == 1


def test_a_batch_is_bounded(tree: Tree) -> None:
    items = [Reserve(new_id(), tree.mission, Amounts(Decimal(1)))] * 501
    with pytest.raises(RemitError, match=r"ledger.batch_too_large"):
        services.reserve_batch(organisation_id=tree.organisation_id, items=items, ttl_seconds=60)
