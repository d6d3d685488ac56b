"""Where questions go: the first route that fits, its group, and the next tier when time or people are short."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.tenancy.models import Membership, User
from controlplane.tenancy.types import Principal
from governance import services
from governance.choices import ActionState, EscalationState
from governance.models import Escalation

from .gate import Gate
from .questions import MakeGroup, refused, waits_for

pytestmark = pytest.mark.django_db


def test_the_first_route_that_fits_decides_whom_a_question_asks(
    gate: Gate, route: Any, make_group: MakeGroup, bob: User, dana: User, as_bob: Principal, as_dana: Principal
) -> None:
    directors, desk = make_group("Directors", dana), make_group("Desk", bob)
    route("Other kinds", kind="mission.widen", group_id=desk.pk)
    route("Large credits", amount_above=Decimal(80), amount_argument="amount", group_id=directors.pk)
    route("The rest", group_id=desk.pk)
    large, small = gate.propose(90), gate.propose(60)
    assert (gate.escalation(large).group, gate.escalation(large).route_name) == (directors, "Large credits")
    assert gate.escalation(small).group == desk
    assert waits_for([as_bob, as_dana], large) == ["Dana"]
    assert waits_for([as_bob, as_dana], small) == ["Bob"]
    error = refused(gate, large, as_bob)
    assert (error.code, error.status) == ("escalation.not_asked", 403)
    assert "Directors" in error.message
    assert gate.decide(large, as_dana).state == EscalationState.APPROVED


def test_without_a_route_any_approver_of_the_team_decides(gate: Gate, as_bob: Principal, as_dana: Principal) -> None:
    judgement = gate.propose(60)
    assert waits_for([as_bob, as_dana], judgement) == ["Bob", "Dana"]
    assert gate.escalation(judgement).route_id is None


@pytest.mark.parametrize("amount", ["ninety", True, [90], {"is": 90}, "1e999", "-1e9999999", "NaN"])
def test_an_amount_that_is_none_takes_the_strict_route(
    gate: Gate, route: Any, make_group: MakeGroup, dana: User, amount: Any
) -> None:
    strict = route("Large", amount_above=Decimal(10**6), amount_argument="total", group_id=make_group("D", dana).pk)
    judgement = gate.propose(arguments={"amount": 60, "total": amount})
    assert gate.escalation(judgement).route_id == strict.pk


def test_an_amount_too_small_to_be_written_is_asked_about_as_nothing(gate: Gate, route: Any) -> None:
    row = route("Any", amount_above=Decimal(0), amount_argument="total")
    escalation = gate.escalation(gate.propose(arguments={"amount": 60, "total": "1e-99999999"}))
    assert (escalation.route_id, escalation.amount) == (row.pk, 0)


def test_only_what_can_not_be_undone_takes_a_route_for_that(gate: Gate, route: Any) -> None:
    row = route("Careful", only_irreversible=True, needed=2)
    assert gate.escalation(gate.propose(60)).route_id is None
    gate.scene.irreversible = True
    escalation = gate.escalation(gate.propose(61))
    assert (escalation.route_id, escalation.needed, escalation.irreversible) == (row.pk, 2, True)


def test_a_quorum_that_became_impossible_goes_to_the_next_tier(
    gate: Gate, route: Any, make_group: MakeGroup, approvers: list[User], acting: Any, as_dana: Principal, dana: User
) -> None:
    group = make_group("Board", *approvers[:2])
    route(needed=2, group_id=group.pk, next_group_id=make_group("Directors", dana).pk, next_seconds=600)
    judgement = gate.propose(60)
    gate.decide(judgement, acting(approvers[0]))
    assert services.sweep().tiers_passed == 0
    Membership.objects.filter(user=approvers[1]).delete()
    assert services.sweep().tiers_passed == 1
    escalation = gate.escalation(judgement)
    assert (escalation.tier, escalation.state) == (2, EscalationState.OPEN)
    assert gate.decide(judgement, as_dana).state == EscalationState.APPROVED  # the first tier's vote still counts
    assert "escalation.next_tier" in Entry.objects.filter(subject_id=escalation.pk).values_list("event", flat=True)


def test_a_tier_whose_time_is_over_asks_the_next_and_then_means_no(
    gate: Gate, route: Any, make_group: MakeGroup, bob: User, dana: User, as_bob: Principal, as_dana: Principal
) -> None:
    route(
        group_id=make_group("Desk", bob).pk,
        answer_seconds=60,
        next_group_id=make_group("Directors", dana).pk,
        next_seconds=120,
    )
    judgement = gate.propose(60)
    escalation = gate.escalation(judgement)
    assert escalation.expires_at - escalation.opened_at == timedelta(seconds=180)
    assert gate.ledger.longest_ttl >= 180
    assert waits_for([as_bob, as_dana], judgement) == ["Bob"]
    Escalation.objects.filter(pk=escalation.pk).update(tier_ends_at=now() - timedelta(seconds=1))
    services.sweep()
    services.sweep()
    assert waits_for([as_bob, as_dana], judgement) == ["Bob", "Dana"]
    assert refused(gate, judgement, as_dana, version=1).code == "escalation.changed"
    Escalation.objects.filter(pk=escalation.pk).update(expires_at=now() - timedelta(seconds=1))
    assert services.sweep().escalations_expired == 1
    assert gate.action(judgement).state == ActionState.EXPIRED
    assert gate.ledger.states == ["voided"]
    assert refused(gate, judgement, as_dana).code == "escalation.closed"


def test_whom_a_question_asks_only_widens(gate: Gate, make_group: MakeGroup, bob: User) -> None:
    gate.propose(60)
    group = make_group("Desk", bob)
    with pytest.raises(IntegrityError), transaction.atomic():
        Escalation.objects.update(group=group)
    with pytest.raises(IntegrityError), transaction.atomic():
        Escalation.objects.update(tier=0)
