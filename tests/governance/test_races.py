"""Many at once, over real connections: one winner, named losers, nothing twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from controlplane.audit.models import Entry
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import User
from controlplane.tenancy.types import Principal
from governance import services
from governance.approval_models import ApprovalRoute
from governance.choices import ActionState, EscalationState, Verdict
from governance.models import Action, Escalation, Permit, Vote
from governance.services import Route

from .gate import Gate

pytestmark = pytest.mark.django_db(transaction=True)

AtOnce = Callable[..., list[Any]]


def codes(results: list[Any]) -> Counter[str]:
    """Errors by code; everything else is a win."""
    unexpected = [item for item in results if isinstance(item, Exception) and not isinstance(item, RemitError)]
    assert not unexpected, unexpected[0]
    return Counter(item.code if isinstance(item, RemitError) else "won" for item in results)


@pytest.mark.slow
def test_of_a_thousand_consumers_of_one_permit_exactly_one_wins(gate: Gate, at_once: AtOnce) -> None:
    judgement = gate.propose(10)
    results = codes(at_once(lambda _: gate.redeem(judgement), 1000))
    assert results == {"won": 1, "permit.consumed": 999}
    assert Permit.objects.filter(action_id=judgement.action_id, consumed_at__isnull=False).count() == 1
    assert Entry.objects.filter(subject_id=judgement.action_id, event="permit.consumed").count() == 1
    assert gate.ledger.states == ["dispatched"]


def test_of_many_agents_back_for_one_approved_action_exactly_one_starts_it(
    gate: Gate, as_dana: Principal, at_once: AtOnce
) -> None:
    judgement = gate.propose(60)
    gate.decide(judgement, as_dana)
    results = codes(at_once(lambda _: gate.redeem(judgement), 40))
    assert results["won"] == 1
    assert set(results) <= {"won", "permit.consumed"}
    assert gate.ledger.states == ["dispatched"]


def test_a_permit_is_either_used_before_the_stop_or_not_at_all(
    gate: Gate, as_alice: Principal, at_once: AtOnce
) -> None:
    judgements = [gate.propose(10) for _ in range(20)]

    def act(number: int) -> Any:
        if number == 10:
            return services.void_open(mission_id=gate.scene.mission_id, actor=as_alice, reason="stopped")
        return gate.redeem(judgements[number])

    codes(at_once(act, 20))
    states = Counter(Action.objects.values_list("state", flat=True))
    assert set(states) <= {ActionState.EXECUTING.value, ActionState.WITHDRAWN.value}
    assert sum(states.values()) == 20
    used = set(Permit.objects.filter(consumed_at__isnull=False).values_list("action_id", flat=True))
    assert used == set(Action.objects.filter(state=ActionState.EXECUTING).values_list("pk", flat=True))
    assert Counter(gate.ledger.states) == {
        name: states[state] for name, state in (("dispatched", "executing"), ("voided", "withdrawn")) if states[state]
    }


def test_of_two_approvers_who_disagree_one_decides(
    gate: Gate, as_dana: Principal, as_bob: Principal, at_once: AtOnce
) -> None:
    for _ in range(5):
        judgement = gate.propose(60)
        votes = [(as_dana, True), (as_bob, False)]
        results = codes(
            at_once(lambda n, j=judgement, v=votes: gate.decide(j, v[n][0], approve=v[n][1], version=1), 2, threads=2)
        )
        assert results["won"] == 1
        assert set(results) <= {"won", "escalation.closed", "escalation.changed"}
        escalation = gate.escalation(judgement)
        assert Vote.objects.filter(escalation=escalation).count() == 1
        expected = ActionState.PERMITTED if escalation.state == EscalationState.APPROVED else ActionState.DENIED
        assert gate.action(judgement).state == expected


def test_an_action_is_withdrawn_whether_or_not_it_is_approved_at_that_moment(
    gate: Gate, as_dana: Principal, at_once: AtOnce
) -> None:
    judgements = [gate.propose(60 + number) for number in range(30)]

    def act(number: int) -> Any:
        judgement = judgements[number // 2]
        if number % 2:
            return services.withdraw(actor=gate.run, action_id=judgement.action_id, reason="Not needed")
        return gate.decide(judgement, as_dana)

    results = at_once(act, 60)
    assert codes(results[1::2]) == {"won": 30}
    assert set(codes(results[0::2])) <= {"won", "escalation.closed"}
    assert set(Action.objects.values_list("state", flat=True)) == {ActionState.WITHDRAWN}
    assert not Escalation.objects.filter(state=EscalationState.OPEN).exists()
    assert set(gate.ledger.states) == {"voided"}


def test_one_idempotency_key_at_once_makes_one_action(gate: Gate, at_once: AtOnce) -> None:
    results = at_once(lambda _: gate.propose(10, idempotency_key="same"), 16)
    assert codes(results) == {"won": 16}
    assert len({item.action_id for item in results}) == 1
    assert sum(not item.replayed for item in results) == 1
    assert gate.ledger.states == ["held"]


def test_one_call_made_many_times_at_once_asks_people_once(gate: Gate, at_once: AtOnce) -> None:
    results = at_once(lambda _: gate.propose(60), 32)
    assert codes(results) == {"won": 32}
    assert len({item.action_id for item in results}) == 1
    assert len({item.escalation.id for item in results}) == 1
    assert Escalation.objects.count() == 1
    assert Entry.objects.filter(event="action.escalated").count() == 1
    assert gate.ledger.states == ["held"]


def test_parallel_actions_can_not_pass_a_limit_each_of_them_fits(gate: Gate, at_once: AtOnce) -> None:
    gate.ledger.limit = 5
    results = at_once(lambda _: gate.propose(10), 20)
    assert Counter(item.verdict for item in results) == {Verdict.ALLOW: 5, Verdict.DENY: 15}
    assert gate.ledger.states == ["held"] * 5


def test_deletions_at_once_can_not_each_be_the_first(gate: Gate, at_once: AtOnce) -> None:
    gate.scene.effects = ["delete"]
    results = at_once(lambda _: gate.propose(10), 16)
    assert Counter(item.verdict for item in results) == {Verdict.ALLOW: 9, Verdict.DENY: 7}


def test_two_sweepers_at_once_settle_each_thing_once(gate: Gate, at_once: AtOnce) -> None:
    gate.scene.ttl_seconds = -1
    for _ in range(10):
        gate.propose(60)
    results = at_once(lambda _: services.sweep(), 4, threads=4)
    codes(results)
    assert sum(item.escalations_expired for item in results) == 10
    assert Entry.objects.filter(event="escalation.expired").count() == 10
    assert gate.ledger.states == ["voided"] * 10


def test_a_vote_and_the_deadline_settle_it_once(gate: Gate, as_dana: Principal, at_once: AtOnce) -> None:
    judgement = gate.propose(60)

    def act(number: int) -> Any:
        if number % 2:
            return services.sweep()
        return gate.decide(judgement, as_dana, version=1)

    at_once(act, 8)
    assert Escalation.objects.get().state == EscalationState.APPROVED
    assert Vote.objects.count() == 1
    assert gate.action(judgement).state == ActionState.PERMITTED


def test_reports_of_one_outcome_at_once_settle_it_once(gate: Gate, at_once: AtOnce) -> None:
    action = gate.redeem(gate.propose(10))
    outcomes = ("success", "failure")
    results = codes(
        at_once(
            lambda n: services.record_outcome(
                holder=gate.run,
                action_id=action.pk,
                audience="mcp",
                outcome=outcomes[n % 2],
                result_sha256="",
                summary="",
                error="",
                effects=[],
            ),
            10,
        )
    )
    assert results == {"won": 5, "outcome.already_recorded": 5}
    assert gate.ledger.states == ["settled"]
    assert len(gate.ledger.results) == 1


def test_routes_made_moved_and_removed_at_once_keep_one_order(as_nadia: Principal, at_once: AtOnce) -> None:
    """Nobody's change fails, and no two routes are left in one place."""
    standing = [services.save_route(actor=as_nadia, route=Route(name=f"Standing {number}")).pk for number in range(8)]

    def change(number: int) -> Any:
        for turn in range(5):
            services.save_route(actor=as_nadia, route=Route(name=f"New {number} {turn}"))
            services.move_route(actor=as_nadia, route_id=standing[number % 4], up=bool(turn % 2))
            services.save_route(actor=as_nadia, route=Route(name=f"Turn {turn}"), route_id=standing[number % 4])
        return services.remove_route(actor=as_nadia, route_id=standing[4 + number]) if number < 4 else None

    assert codes(at_once(change, 8)) == {"won": 8}
    places = ApprovalRoute.objects.order_by("position").values_list("position", flat=True)
    assert len(set(places)) == len(places) == 4 + 8 * 5


def test_no_route_is_left_asking_a_group_that_was_retired_at_that_moment(
    as_nadia: Principal, make_group: Any, bob: User, at_once: AtOnce
) -> None:
    groups = [make_group(f"Desk {number}", bob) for number in range(20)]

    def act(number: int) -> Any:
        group = groups[number // 2]
        if number % 2:
            return services.retire_group(actor=as_nadia, group_id=group.pk)
        return services.save_route(actor=as_nadia, route=Route(name="R", group_id=group.pk))

    assert set(codes(at_once(act, 40))) <= {"won", "group.in_use", "route.invalid"}
    assert not ApprovalRoute.objects.filter(group__retired_at__isnull=False).exists()
