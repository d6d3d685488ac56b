"""How many votes a question takes, and votes that do not count."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection

from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Membership, User
from controlplane.tenancy.types import Principal
from governance import selectors, services
from governance.choices import ActionState, EscalationState
from governance.models import Action, Escalation, Vote

from .gate import Gate
from .questions import MakeGroup, refused

pytestmark = pytest.mark.django_db


def test_two_of_three_means_two_people(
    gate: Gate, route: Any, make_group: MakeGroup, approvers: list[User], acting: Any
) -> None:
    route(needed=2, group_id=make_group("Board", *approvers).pk)
    judgement = gate.propose(60)
    first, second, third = (acting(person) for person in approvers)
    assert gate.decide(judgement, first).state == EscalationState.OPEN
    assert gate.action(judgement).state == ActionState.WAITING
    assert refused(gate, judgement, first).code == "escalation.voted"
    assert gate.decide(judgement, second).state == EscalationState.APPROVED
    assert refused(gate, judgement, third).code == "escalation.closed"


@pytest.mark.parametrize("loss", ["deactivated", "role", "group"])
def test_a_vote_of_somebody_who_may_no_longer_decide_does_not_count(
    gate: Gate, route: Any, make_group: MakeGroup, approvers: list[User], acting: Any, loss: str
) -> None:
    group = make_group("Board", *approvers)
    route(needed=2, group_id=group.pk)
    judgement = gate.propose(60)
    first, second, third = (acting(person) for person in approvers)
    gate.decide(judgement, first)
    match loss:
        case "deactivated":
            User.objects.filter(pk=approvers[0].pk).update(is_active=False)
        case "role":
            Membership.objects.filter(user=approvers[0]).delete()
        case _:
            group.members.remove(approvers[0])
    assert gate.decide(judgement, second).state == EscalationState.OPEN
    assert gate.action(judgement).state == ActionState.WAITING
    assert gate.decide(judgement, third).state == EscalationState.APPROVED


def test_health_counts_answers_and_how_long_they_took(gate: Gate, as_dana: Principal, as_bob: Principal) -> None:
    gate.decide(gate.propose(60), as_dana)
    gate.decide(gate.propose(60), as_dana, approve=False)
    late = gate.propose(60)
    Escalation.objects.filter(pk=gate.escalation(late).pk).update(expires_at=now() - timedelta(seconds=1))
    services.sweep()
    health = selectors.approver_health(as_bob, since=now() - timedelta(days=1))
    (dana,) = health.people
    assert (dana.name, dana.answers, dana.approvals, dana.approve_rate, dana.hasty) == ("Dana", 2, 1, 0.5, 1)
    assert 0 <= dana.median <= dana.p90 < 10
    (anybody,) = health.groups
    assert (anybody.questions, anybody.approved, anybody.denied, anybody.expired) == (3, 1, 1, 1)


@pytest.mark.django_db(transaction=True)
def test_two_approvers_at_once_are_two_votes_and_one_settles_it(
    gate: Gate, route: Any, as_dana: Principal, as_bob: Principal
) -> None:
    route(needed=2)
    judgement = gate.propose(60)

    def vote(person: Principal) -> str:
        try:
            gate.decide(judgement, person)
        except RemitError as error:
            return error.code
        finally:
            connection.close()
        return "counted"

    with ThreadPoolExecutor(2) as pool:
        said = sorted(pool.map(vote, (as_dana, as_bob)))
    assert said in (["counted", "counted"], ["counted", "escalation.changed"])
    if said[1] != "counted":
        assert gate.action(judgement).state == ActionState.WAITING
        last = as_bob if Vote.objects.get().user_id == as_dana.id else as_dana
        gate.decide(judgement, last)
    assert gate.action(judgement).state == ActionState.PERMITTED
    assert Vote.objects.count() == 2
    assert Action.objects.count() == 1


def test_a_vote_after_expiry_or_edit_changes_nothing(gate: Gate, as_dana: Principal) -> None:
    judgement = gate.propose(60)
    Escalation.objects.update(expires_at=now() - timedelta(seconds=1))
    assert refused(gate, judgement, as_dana).code == "escalation.expired"
