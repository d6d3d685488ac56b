"""What becomes of a hold: dispatch, settle, void, extend, sweep; each refused, repeated, late or too large."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from budgets import services
from budgets.models import Hold, JournalEntry
from budgets.port import LedgerPort
from budgets.sweeping import sweep_all
from budgets.types import Amounts, HoldState
from controlplane.audit.events import Event
from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.common.ids import new_id
from tests.budgets.conftest import Tree, window, wrong_sums

pytestmark = pytest.mark.django_db
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def _expire(hold_id: uuid.UUID) -> None:
    Hold.objects.filter(pk=hold_id).update(expires_at=LONG_AGO)


def _state(hold_id: uuid.UUID) -> str:
    return Hold.objects.values_list("state", flat=True).get(pk=hold_id)


def test_settling_below_the_hold_gives_the_rest_back(tree: Tree) -> None:
    hold_id = tree.held("5", tokens=100)
    services.dispatch(hold_id=hold_id)
    result = services.settle(hold_id=hold_id, amounts=Amounts(Decimal(2), 40, 1))
    assert result.charged == Amounts(Decimal(2), 40, 1)
    row = window(tree.mission)
    assert (row.held_money, row.spent_money, row.held_tokens, row.spent_tokens) == (0, 2, 0, 40)
    assert wrong_sums() == []


def test_the_gate_settles_at_the_held_price(tree: Tree) -> None:
    hold_id = tree.held("0.05", tokens=7)
    ledger = LedgerPort()
    ledger.dispatch(hold_id=hold_id)
    assert ledger.settle(hold_id=hold_id, money=None) == Decimal("0.05")
    assert window(tree.team).spent_tokens == 7


def test_an_excess_takes_the_room_that_is_left(tree: Tree) -> None:
    hold_id = tree.held("1")
    result = services.settle(hold_id=hold_id, amounts=Amounts(Decimal(3), 0, 1))
    assert result.overrun == ()
    row = window(tree.mission)
    assert (row.spent_money, row.overrun_money, row.frozen) == (3, 0, False)
    assert wrong_sums() == []


def test_an_excess_without_room_is_charged_frozen_and_told(tree: Tree) -> None:
    tree.limit(tree.mission, money=Decimal(1))
    tree.limit(tree.team, money=Decimal("1.5"))
    hold_id = tree.held("1")
    result = services.settle(hold_id=hold_id, amounts=Amounts(Decimal(2), 0, 1))
    assert set(result.overrun) == {tree.mission, tree.team}
    mission, agent, team = (window(account) for account in (tree.mission, tree.agent, tree.team))
    assert (mission.spent_money, mission.overrun_money, mission.frozen) == (1, 1, True)
    assert (agent.spent_money, agent.overrun_money, agent.frozen) == (2, 0, False)
    assert (team.spent_money, team.overrun_money, team.frozen) == (Decimal("1.5"), Decimal("0.5"), True)
    told = Entry.objects.filter(event=Event.BUDGET_OVERRUN)
    assert {entry.subject_id for entry in told} == {tree.mission, tree.team}
    overruns = JournalEntry.objects.filter(hold_id=hold_id, kind="overrun").values_list("account_id", "money")
    assert dict(overruns) == {tree.mission: 1, tree.team: Decimal("0.5")}
    _, refusal = tree.reserve("0")
    assert refusal is not None
    assert refusal.reason_code == "budget.frozen"
    assert wrong_sums() == []


def test_raising_the_limit_over_an_overrun_lifts_its_freeze(tree: Tree) -> None:
    tree.limit(tree.mission, money=Decimal(1))
    services.settle(hold_id=tree.held("1"), amounts=Amounts(Decimal(2)))
    tree.limit(tree.mission, money=Decimal("1.9"))
    assert window(tree.mission).frozen
    tree.limit(tree.mission, money=Decimal(3))
    row = window(tree.mission)
    assert (row.frozen, row.overrun_money) == (False, 1)
    assert tree.reserve("1.1")[1] is not None
    tree.held("1")
    assert wrong_sums() == []


def test_a_void_gives_everything_back_once(tree: Tree) -> None:
    hold_id = tree.held("4", tokens=9)
    services.void(hold_id=hold_id)
    services.void(hold_id=hold_id)
    assert all((window(a).held_money, window(a).held_tokens) == (0, 0) for a in tree.levels)
    with pytest.raises(RemitError, match=r"ledger.hold_closed"):
        services.settle(hold_id=hold_id)
    with pytest.raises(RemitError, match=r"ledger.hold_closed"):
        services.dispatch(hold_id=hold_id)
    with pytest.raises(RemitError, match=r"ledger.hold_closed"):
        services.extend(hold_id=hold_id, ttl_seconds=10)
    _, refusal = tree.reserve("4", tokens=9, hold_id=hold_id)
    assert refusal is not None
    assert refusal.reason_code == "budget.hold_closed"
    assert wrong_sums() == []


def test_a_settled_hold_is_not_voided(tree: Tree) -> None:
    hold_id = tree.held("4")
    services.settle(hold_id=hold_id)
    with pytest.raises(RemitError, match=r"ledger.hold_settled"):
        services.void(hold_id=hold_id)
    assert window(tree.mission).spent_money == 4


@pytest.mark.parametrize("act", ["dispatch", "settle", "void"])
def test_an_unknown_hold_is_not_found(tree: Tree, act: str) -> None:
    with pytest.raises(RemitError) as missing:
        getattr(services, act)(hold_id=new_id())
    assert missing.value.status == 404


def test_dispatch_starts_the_clock_anew(tree: Tree) -> None:
    hold_id = tree.held("1", ttl_seconds=60)
    Hold.objects.filter(pk=hold_id).update(expires_at=now() + timedelta(seconds=1))
    services.dispatch(hold_id=hold_id)
    services.dispatch(hold_id=hold_id)
    assert Hold.objects.get(pk=hold_id).expires_at > now() + timedelta(seconds=50)


def test_extend_keeps_a_hold_from_the_sweep(tree: Tree) -> None:
    hold_id = tree.held("1")
    _expire(hold_id)
    services.extend(hold_id=hold_id, ttl_seconds=60)
    sweep_all()
    assert _state(hold_id) == HoldState.HELD


def test_the_sweep_gives_back_what_was_never_used(tree: Tree) -> None:
    hold_id, kept = tree.held("1"), tree.held("2")
    _expire(hold_id)
    swept = sweep_all()
    assert (swept.expired, swept.provisional) == (1, 0)
    assert (_state(hold_id), _state(kept)) == (HoldState.EXPIRED, HoldState.HELD)
    assert window(tree.organisation).held_money == 2
    assert wrong_sums() == []


def test_the_sweep_charges_what_was_used_and_never_reported_and_a_late_report_corrects_it(tree: Tree) -> None:
    low, high, none = (tree.held("3") for _ in range(3))
    for hold_id in (low, high, none):
        services.dispatch(hold_id=hold_id)
        _expire(hold_id)
    assert sweep_all().provisional == 3
    assert Hold.objects.get(pk=low).provisional
    assert window(tree.mission).spent_money == 9
    assert JournalEntry.objects.get(hold_id=low, kind="settle").note == "provisional"
    services.settle(hold_id=low, amounts=Amounts(Decimal(1), 0, 1))
    services.settle(hold_id=high, amounts=Amounts(Decimal(5), 0, 1))
    services.void(hold_id=none)
    assert window(tree.mission).spent_money == 6
    assert services.settle(hold_id=low, amounts=Amounts(Decimal(2))).replayed
    assert wrong_sums() == []


def test_a_report_on_an_expired_hold_is_charged_all_the_same(tree: Tree) -> None:
    tree.limit(tree.mission, money=Decimal(1))
    hold_id = tree.held("1")
    _expire(hold_id)
    sweep_all()
    tree.held("0.5")
    services.settle(hold_id=hold_id)
    row = window(tree.mission)
    assert (row.held_money, row.spent_money, row.overrun_money, row.frozen) == (
        Decimal("0.5"),
        Decimal("0.5"),
        Decimal("0.5"),
        True,
    )
    assert wrong_sums() == []
