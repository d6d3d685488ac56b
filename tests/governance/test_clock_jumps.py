"""The machine's clock jumps ahead and back: every timer fires at most once, and nothing is decided twice."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from controlplane.common import clock
from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Principal
from governance import services
from governance.choices import ActionState, EscalationState
from governance.models import Vote
from governance.sweeping import SweepCounts

from .gate import Gate

pytestmark = pytest.mark.django_db

Jump = Callable[[timedelta], None]
NOTHING = SweepCounts()


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Jump:
    """`jump(timedelta(days=-1))`: from now on the clock of governance shows a day less than it should."""
    original, offset = clock.now, [timedelta(0)]

    def shifted() -> datetime:
        return original() + offset[0]

    for name, module in list(sys.modules.items()):
        if name.startswith("governance.") and getattr(module, "now", None) is original:
            monkeypatch.setattr(module, "now", shifted)

    def by(difference: timedelta) -> None:
        offset[0] = difference

    return by


def test_a_question_that_a_jump_ahead_closed_stays_closed_when_the_clock_is_set_back(
    gate: Gate, as_dana: Principal, jump: Jump
) -> None:
    judgement = gate.propose(60)
    jump(timedelta(days=2))
    assert services.sweep() == SweepCounts(escalations_expired=1)
    assert services.sweep() == NOTHING
    jump(timedelta(0))
    assert services.sweep() == NOTHING
    with pytest.raises(RemitError, match="escalation"):
        gate.decide(judgement, as_dana)
    assert Vote.objects.count() == 0
    assert gate.action(judgement).state == ActionState.EXPIRED
    assert gate.escalation(judgement).state == EscalationState.EXPIRED
    assert gate.ledger.states == ["voided"]


def test_a_jump_back_neither_closes_a_question_nor_lets_it_be_decided_twice(
    gate: Gate, as_dana: Principal, jump: Jump
) -> None:
    judgement = gate.propose(60)
    jump(timedelta(hours=-12))
    assert services.sweep() == NOTHING
    gate.decide(judgement, as_dana)
    jump(timedelta(0))
    assert services.sweep() == NOTHING
    with pytest.raises(RemitError, match="escalation"):
        gate.decide(judgement, as_dana, approve=False)
    gate.redeem(judgement)
    with pytest.raises(RemitError, match=r"permit\.consumed"):
        gate.redeem(judgement)
    assert gate.ledger.states == ["dispatched"]


def test_a_permit_that_a_jump_ahead_ended_is_dead_when_the_clock_is_set_back(gate: Gate, jump: Jump) -> None:
    judgement = gate.propose(10)
    jump(timedelta(hours=1))
    assert services.sweep() == SweepCounts(permits_expired=1)
    jump(timedelta(0))
    with pytest.raises(RemitError, match=r"permit\."):
        gate.redeem(judgement)
    assert gate.action(judgement).state == ActionState.EXPIRED
    assert gate.ledger.states == ["voided"]


def test_an_action_that_a_jump_ahead_gave_up_ends_once_with_what_its_executor_says(gate: Gate, jump: Jump) -> None:
    action = gate.redeem(gate.propose(10))
    jump(timedelta(days=1))
    assert services.sweep() == SweepCounts(outcomes_lost=1)
    jump(timedelta(days=-1))
    assert services.sweep() == NOTHING
    services.record_outcome(
        holder=gate.run, action_id=action.pk, audience="mcp", outcome="success", result_sha256="sha256:aa"
    )
    jump(timedelta(days=3))
    assert services.sweep() == NOTHING
    assert gate.ledger.states == ["settled"]
