"""Many questions: identical ones are answered together, and a flood of them is refused."""

from __future__ import annotations

import pytest

from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Principal
from governance import selectors, services
from governance.choices import ActionState, Verdict
from governance.flood import MOST_OPEN
from governance.models import Escalation, Vote

from .gate import Gate

pytestmark = pytest.mark.django_db


def test_identical_questions_are_answered_together_each_by_itself(gate: Gate, as_dana: Principal) -> None:
    first, second, third = (gate.propose(60, idempotency_key=str(number)) for number in range(3))
    rows = [(gate.escalation(judgement).pk, 1) for judgement in (first, second, third)]
    services.withdraw(actor=gate.run, action_id=second.action_id)
    results = services.decide_many(approver=as_dana, items=rows, approve=True, reason="")
    assert [result.error.code if result.error else result.state for result in results] == [
        "approved",
        "escalation.closed",
        "approved",
    ]
    assert gate.action(second).state == ActionState.WITHDRAWN
    assert Vote.objects.count() == 2


def test_a_dangerous_row_can_not_hide_among_identical_ones(gate: Gate, as_dana: Principal) -> None:
    amounts = (60, 60, 99, 60)
    rows = [
        (gate.escalation(gate.propose(amount, idempotency_key=str(number))).pk, 1)
        for number, amount in enumerate(amounts)
    ]
    with pytest.raises(RemitError, match=r"bulk\.different"):
        services.decide_many(approver=as_dana, items=rows, approve=True, reason="")
    assert not Vote.objects.exists()
    assert set(Escalation.objects.values_list("state", flat=True)) == {"open"}


def test_others_questions_can_not_be_slipped_into_a_bulk_answer(
    gate: Gate, as_dana: Principal, as_charlie: Principal
) -> None:
    rows = [(gate.escalation(gate.propose(60)).pk, 1)]
    with pytest.raises(RemitError, match=r"escalation\.not_found"):
        services.decide_many(approver=as_charlie, items=rows, approve=True, reason="")
    with pytest.raises(RemitError, match=r"bulk\.size"):
        services.decide_many(approver=as_dana, items=rows * 2, approve=True, reason="")
    assert not Vote.objects.exists()


def test_similar_means_the_same_and_nothing_broader(gate: Gate, as_dana: Principal) -> None:
    mine, same, other = (
        gate.escalation(gate.propose(amount, idempotency_key=str(number))) for number, amount in enumerate((60, 60, 61))
    )
    found = {row.pk for row in selectors.identical_to(as_dana, mine)}
    assert same.pk in found
    assert other.pk not in found


def test_a_flood_of_questions_is_refused(gate: Gate) -> None:
    proposed = [gate.propose(60, idempotency_key=str(number)) for number in range(MOST_OPEN)]
    assert {judgement.verdict for judgement in proposed} == {Verdict.ESCALATE}
    judgement = gate.propose(61)
    assert (judgement.verdict, judgement.reason_code) == (Verdict.DENY, "escalation.too_many_open")
    assert gate.propose(10).verdict is Verdict.ALLOW
    services.withdraw(actor=gate.run, action_id=proposed[0].action_id)
    assert gate.propose(62).verdict is Verdict.ESCALATE
