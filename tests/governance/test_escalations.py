"""People decide: four eyes, quorum, races, deadlines; an approval lifts what it was asked for and nothing else."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.models import Membership, User
from controlplane.tenancy.types import Permission, Principal, Role
from governance import selectors, services
from governance.choices import ActionState, EscalationState, Verdict
from governance.models import Action, Decision, Escalation, Permit, Vote
from governance.transitions import APPROVED_TTL_SECONDS
from governance.types import Finding

from .gate import Gate
from .questions import everything, refused

pytestmark = pytest.mark.django_db


def test_an_approval_permits_exactly_the_action_that_was_asked_for(gate: Gate, as_dana: Principal) -> None:
    judgement = gate.propose(60)
    escalation = gate.decide(judgement, as_dana)
    assert escalation.state == EscalationState.APPROVED
    action = gate.action(judgement)
    assert (action.state, action.verdict) == (ActionState.PERMITTED, Verdict.ALLOW)
    first, second = Decision.objects.filter(action=action).order_by("id")
    assert (first.approved_policies, second.approved_policies) == ([], ["grant/0/ask"])
    assert first.digest == second.digest
    assert not Permit.objects.filter(action=action).exists()
    assert gate.ledger.states == ["held"]
    assert gate.ledger.longest_ttl == APPROVED_TTL_SECONDS
    assert gate.scene.decided == [(ActionState.PERMITTED, "Dana")]
    assert gate.propose(60).verdict is Verdict.ESCALATE


def test_the_approved_action_gets_its_permit_when_the_agent_comes_back(gate: Gate, as_dana: Principal) -> None:
    judgement = gate.propose(60)
    gate.decide(judgement, as_dana)
    action = gate.redeem(judgement)
    assert action.state == ActionState.EXECUTING
    assert Permit.objects.get(action=action).consumed_at is not None
    with pytest.raises(RemitError, match=r"permit\.consumed"):
        gate.redeem(judgement)


def test_an_approval_does_not_survive_a_change_of_what_was_approved(gate: Gate, as_dana: Principal) -> None:
    judgement = gate.propose(60)
    gate.decide(judgement, as_dana)
    gate.scene.tool_sha256 = "sha256:bb"
    with pytest.raises(RemitError, match=r"action\.changed"):
        gate.redeem(judgement)
    assert gate.action(judgement).state == ActionState.DENIED
    assert gate.ledger.states == ["voided"]


def test_an_approval_never_lifts_a_hard_rule(gate: Gate, as_dana: Principal) -> None:
    judgement = gate.propose(60)
    gate.scene.tool_approved = False
    escalation = gate.decide(judgement, as_dana)
    assert escalation.state == EscalationState.SUPERSEDED
    action = gate.action(judgement)
    assert (action.state, action.reason_code) == (ActionState.DENIED, "tool.quarantined")
    assert gate.ledger.states == ["voided"]
    assert gate.scene.decided == [(ActionState.DENIED, "Dana")]


def test_what_else_needs_a_person_by_now_is_a_new_question(gate: Gate, as_dana: Principal, as_bob: Principal) -> None:
    judgement = gate.propose(60)
    gate.scene.guards = [Finding(Verdict.ESCALATE, "change.freeze", "A change freeze began.", policy="freeze")]
    assert gate.decide(judgement, as_dana).state == EscalationState.SUPERSEDED
    action = gate.action(judgement)
    assert action.state == ActionState.WAITING
    second = Escalation.objects.get(action=action, state=EscalationState.OPEN)
    assert second.policies == ["freeze"]
    services.decide(approver=as_bob, escalation_id=second.pk, version=second.version, approve=True, reason="")
    assert gate.action(judgement).state == ActionState.PERMITTED
    assert gate.redeem(judgement).state == ActionState.EXECUTING


def test_a_refusal_ends_it_with_its_reason(gate: Gate, as_dana: Principal) -> None:
    judgement = gate.propose(60)
    escalation = gate.decide(judgement, as_dana, approve=False, reason="The customer is in dispute.")
    assert escalation.state == EscalationState.DENIED
    action = gate.action(judgement)
    assert (action.state, action.reason_code) == (ActionState.DENIED, "escalation.denied")
    assert "in dispute" in action.message
    assert gate.ledger.states == ["voided"]
    assert gate.scene.decided == [(ActionState.DENIED, "Dana")]
    assert Entry.objects.filter(subject_id=escalation.pk).values_list("event", flat=True).get() == "escalation.denied"


def test_a_refusal_needs_a_reason(gate: Gate, as_dana: Principal) -> None:
    judgement = gate.propose(60)
    assert refused(gate, judgement, as_dana, approve=False, reason="  ").code == "reason.missing"


def test_the_responsible_person_can_not_approve(gate: Gate, as_dana: Principal, as_bob: Principal) -> None:
    gate.scene.excluded = [as_dana.id]
    judgement = gate.propose(60)
    error = refused(gate, judgement, as_dana)
    assert (error.code, error.status) == ("escalation.four_eyes", 403)
    assert gate.decide(judgement, as_bob).state == EscalationState.APPROVED


def test_who_asked_can_not_approve_even_as_an_approver(gate: Gate, as_nadia: Principal, as_dana: Principal) -> None:
    judgement = services.propose(
        proposer=as_nadia, proposal=gate.proposal(kind="test.sign_off", tool="", arguments={"money": 6})
    )
    assert judgement.verdict is Verdict.ESCALATE
    assert refused(gate, judgement, as_nadia).code == "escalation.four_eyes"
    gate.decide(judgement, as_dana)
    assert gate.action(judgement).state == ActionState.SUCCEEDED
    assert gate.scene.decided == [(ActionState.PERMITTED, "Dana")]


@pytest.mark.parametrize("who", ["as_alice", "as_finn", "as_charlie"])
def test_people_without_the_permission_do_not_even_see_it(gate: Gate, who: str, request: Any) -> None:
    judgement = gate.propose(60)
    error = refused(gate, judgement, request.getfixturevalue(who))
    assert (error.code, error.status) == ("escalation.not_found", 404)


def test_an_agent_can_not_approve_itself(gate: Gate) -> None:
    assert refused(gate, gate.propose(60), gate.run).code == "escalation.not_found"


def test_an_approver_of_another_team_can_not_decide(gate: Gate, make_person: Any, acting: Any, other_team: Any) -> None:
    person = make_person("Olga", other_team.organisation, Role.APPROVER, team=other_team)
    assert refused(gate, gate.propose(60), acting(person)).code == "escalation.not_found"


def test_a_narrowed_token_of_an_approver_can_not_decide(gate: Gate, as_dana: Principal) -> None:
    narrowed = Principal(**{**as_dana.__dict__, "scopes": frozenset({Permission.ESCALATION_VIEW})})
    assert refused(gate, gate.propose(60), narrowed).code == "escalation.not_found"


def test_a_vote_needs_the_version_the_person_saw(gate: Gate, as_dana: Principal) -> None:
    judgement = gate.propose(60)
    error = refused(gate, judgement, as_dana, version=gate.escalation(judgement).version + 1)
    assert (error.code, error.status, error.data["version"]) == ("escalation.changed", 409, 1)


def test_the_second_of_two_approvers_is_told_who_was_first(gate: Gate, as_dana: Principal, as_bob: Principal) -> None:
    judgement = gate.propose(60)
    gate.decide(judgement, as_dana)
    error = refused(gate, judgement, as_bob, approve=False, version=1)
    assert (error.code, error.data["state"]) == ("escalation.closed", "approved")


def test_a_vote_after_the_deadline_does_not_count(gate: Gate, as_dana: Principal) -> None:
    gate.scene.ttl_seconds = -1
    judgement = gate.propose(60)
    assert refused(gate, judgement, as_dana).code == "escalation.expired"
    assert services.sweep().escalations_expired == 1
    assert refused(gate, judgement, as_dana).code == "escalation.closed"


def test_nobody_deciding_in_time_means_no(gate: Gate) -> None:
    gate.scene.ttl_seconds = -1
    judgement = gate.propose(60)
    assert services.sweep().escalations_expired == 1
    assert services.sweep().escalations_expired == 0
    action = gate.action(judgement)
    assert (action.state, action.reason_code) == (ActionState.EXPIRED, "escalation.expired")
    assert action.escalations.get().reason == "nobody answered in time"
    assert gate.escalation(judgement).state == EscalationState.EXPIRED
    assert gate.ledger.states == ["voided"]
    assert gate.scene.decided == [(ActionState.EXPIRED, "Remit")]


# Quorum --------------------------------------------------------------------------------------------------------------


def needing_two(gate: Gate) -> Any:
    """An escalation that needs two approvals. `needed` is fixed when it is opened, so it is opened again with two."""
    judgement = gate.propose(60)
    with transaction.atomic():
        with pytest.raises(IntegrityError), transaction.atomic():
            Escalation.objects.filter(action_id=judgement.action_id).update(needed=2)
        opened = gate.escalation(judgement)
        Escalation.objects.filter(pk=opened.pk).update(state=EscalationState.SUPERSEDED)
        opened.pk, opened.needed = uuid.uuid4(), 2
        opened.save(force_insert=True)
    return type(judgement)(
        **{**judgement.__dict__, "escalation": type(judgement.escalation)(opened.pk, opened.expires_at)}
    )


def test_with_a_quorum_of_two_one_approval_is_not_enough(gate: Gate, as_dana: Principal, as_bob: Principal) -> None:
    judgement = needing_two(gate)
    assert gate.decide(judgement, as_dana).state == EscalationState.OPEN
    assert gate.action(judgement).state == ActionState.WAITING
    assert refused(gate, judgement, as_dana).code == "escalation.voted"
    assert gate.decide(judgement, as_bob).state == EscalationState.APPROVED
    assert gate.action(judgement).state == ActionState.PERMITTED


def test_one_refusal_ends_a_quorum(gate: Gate, as_dana: Principal, as_bob: Principal) -> None:
    judgement = needing_two(gate)
    gate.decide(judgement, as_dana)
    gate.decide(judgement, as_bob, approve=False)
    assert gate.action(judgement).state == ActionState.DENIED


@pytest.mark.parametrize("loss", ["deactivated", "role"])
def test_the_vote_of_someone_who_may_no_longer_decide_does_not_count(
    gate: Gate, dana: User, as_dana: Principal, as_bob: Principal, loss: str
) -> None:
    judgement = needing_two(gate)
    gate.decide(judgement, as_dana)
    if loss == "deactivated":
        User.objects.filter(pk=dana.pk).update(is_active=False)
    else:
        Membership.objects.filter(user=dana).delete()
    assert gate.decide(judgement, as_bob).state == EscalationState.OPEN
    assert gate.action(judgement).state == ActionState.WAITING


def test_votes_are_never_changed_or_deleted(gate: Gate, as_dana: Principal) -> None:
    gate.decide(gate.propose(60), as_dana)
    for attempt in (lambda: Vote.objects.update(approve=False), lambda: Vote.objects.all().delete()):
        with pytest.raises(IntegrityError), transaction.atomic():
            attempt()
    vote = Vote.objects.get()
    assert vote.digest == Action.objects.get().digest


def test_who_asked_and_has_left_gets_nothing(gate: Gate, alice: User, as_alice: Principal, as_dana: Principal) -> None:
    judgement = services.propose(
        proposer=as_alice, proposal=gate.proposal(kind="test.sign_off", tool="", arguments={"money": 6})
    )
    User.objects.filter(pk=alice.pk).update(is_active=False)
    assert gate.decide(judgement, as_dana).state == EscalationState.SUPERSEDED
    assert gate.action(judgement).reason_code == "proposer.gone"


# Withdrawing and stopping --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [10, 60])
def test_an_agent_may_take_back_what_is_still_open(gate: Gate, amount: int) -> None:
    judgement = gate.propose(amount)
    services.withdraw(actor=gate.run, action_id=judgement.action_id, reason="no longer needed")
    assert gate.action(judgement).state == ActionState.WITHDRAWN
    assert gate.ledger.states == ["voided"]
    assert not Permit.objects.filter(consumed_at__isnull=True, voided_at__isnull=True).exists()
    assert not Escalation.objects.filter(state=EscalationState.OPEN).exists()
    with pytest.raises(RemitError, match=r"action\.not_open"):
        services.withdraw(actor=gate.run, action_id=judgement.action_id)


@pytest.mark.parametrize("amount", [10, 60])
def test_a_withdrawn_action_says_so_and_why(gate: Gate, as_alice: Principal, amount: int) -> None:
    first, second = gate.propose(amount), gate.propose(amount + 1)
    services.withdraw(actor=as_alice, action_id=first.action_id, reason=" The customer has paid. ")
    services.withdraw(actor=as_alice, action_id=second.action_id)
    told = [gate.action(judgement) for judgement in (first, second)]
    assert [action.message for action in told] == ["Withdrawn: The customer has paid.", "Withdrawn by Alice."]
    assert {action.reason_code for action in told} == {"action.withdrawn"}
    assert all("later" not in remedy for action in told for remedy in action.remedies)


def test_others_take_back_only_what_they_operate(
    gate: Gate, as_alice: Principal, as_bob: Principal, as_charlie: Principal
) -> None:
    judgement = gate.propose(60)
    for actor in (as_bob, as_charlie):
        with pytest.raises(RemitError, match=r"action\.not_found"):
            services.withdraw(actor=actor, action_id=judgement.action_id)
    assert services.withdraw(actor=as_alice, action_id=judgement.action_id).state == ActionState.WITHDRAWN


def test_stopping_a_mission_closes_all_that_is_open_and_nothing_else(
    gate: Gate, as_alice: Principal, as_dana: Principal
) -> None:
    permitted, waiting, running, approved = gate.propose(10), gate.propose(60), gate.propose(11), gate.propose(70)
    gate.redeem(running)
    gate.decide(approved, as_dana)
    counts = services.void_open(mission_id=gate.scene.mission_id, actor=as_alice, reason="stopped")
    assert (counts.actions, counts.escalations, counts.permits) == (3, 1, 1)
    states = {gate.action(judgement).state for judgement in (permitted, waiting, approved)}
    assert states == {ActionState.WITHDRAWN}
    assert gate.action(running).state == ActionState.EXECUTING
    assert gate.ledger.states == ["dispatched", "voided", "voided", "voided"]
    assert services.void_open(mission_id=gate.scene.mission_id, actor=as_alice, reason="again").actions == 0


def test_stopping_in_another_organisation_touches_nothing_here(gate: Gate, as_charlie: Principal) -> None:
    judgement = gate.propose(10)
    assert services.void_open(mission_id=gate.scene.mission_id, actor=as_charlie, reason="x").actions == 0
    assert gate.action(judgement).state == ActionState.PERMITTED


def test_a_permit_nobody_used_expires_with_its_hold(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("governance.permits.TTL_SECONDS", -1)
    judgement = gate.propose(10)
    assert services.sweep().permits_expired == 1
    assert gate.action(judgement).state == ActionState.EXPIRED
    assert gate.ledger.states == ["voided"]


def test_an_approval_waits_longer_than_a_permit_for_its_agent(
    gate: Gate, as_dana: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    judgement = gate.propose(60)
    gate.decide(judgement, as_dana)
    monkeypatch.setattr("governance.permits.TTL_SECONDS", -1)
    assert services.sweep().permits_expired == 0
    monkeypatch.setattr("governance.sweeping.APPROVED_TTL_SECONDS", -1)
    assert services.sweep().permits_expired == 1
    assert gate.action(judgement).state == ActionState.EXPIRED
    assert gate.ledger.states == ["voided"]


def test_an_approval_of_yesterday_starts_nothing_though_no_sweep_has_come_by(gate: Gate, as_dana: Principal) -> None:
    judgement = gate.propose(60)
    gate.decide(judgement, as_dana)
    a_day = timedelta(seconds=APPROVED_TTL_SECONDS)
    Action.objects.filter(pk=judgement.action_id).update(decided_at=now() - a_day)
    before = everything()
    with pytest.raises(RemitError) as caught:
        gate.redeem(judgement, permit_token=None)
    assert (caught.value.code, caught.value.status) == ("permit.expired", 409)
    assert caught.value.remedies
    assert everything() == before
    assert gate.ledger.states == ["held"]
    Action.objects.filter(pk=judgement.action_id).update(decided_at=now() - a_day + timedelta(minutes=1))
    assert gate.redeem(judgement, permit_token=None).state == ActionState.EXECUTING


# Reading -------------------------------------------------------------------------------------------------------------


def test_the_inbox_holds_what_this_person_may_decide(
    gate: Gate, as_dana: Principal, as_bob: Principal, as_alice: Principal, as_charlie: Principal
) -> None:
    gate.scene.excluded = [as_dana.id]
    mine = gate.propose(60)
    gate.scene.excluded = []
    ours = gate.propose(70)
    assert [row.action_id for row in selectors.escalations_waiting_for(as_bob)] == [mine.action_id, ours.action_id]
    assert [row.action_id for row in selectors.escalations_waiting_for(as_dana)] == [ours.action_id]
    counts = [selectors.count_waiting_for(principal=who) for who in (as_dana, as_bob, as_alice, as_charlie, gate.run)]
    assert counts == [1, 2, 0, 0, 0]
    gate.decide(ours, as_bob)
    assert selectors.count_waiting_for(principal=as_dana) == 0


def test_counting_the_inbox_is_one_query_after_one_about_standing_in(
    gate: Gate, as_dana: Principal, django_assert_num_queries: Any
) -> None:
    gate.propose(60)
    with django_assert_num_queries(2):
        assert selectors.count_waiting_for(principal=as_dana) == 1
    with django_assert_num_queries(0):
        assert selectors.count_waiting_for(principal=gate.run) == 0


def test_lists_are_paged_and_only_ones_own(gate: Gate, as_alice: Principal, as_charlie: Principal) -> None:
    made = [gate.propose(amount).action_id for amount in (1, 2, 3, 60, 101)]
    seen: list[uuid.UUID] = []
    cursor = None
    while True:
        page = selectors.actions(principal=as_alice, limit=2, cursor=cursor)
        seen += [row.pk for row in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == list(reversed(made))
    assert not selectors.actions(principal=as_charlie).items
    waiting = selectors.actions(principal=as_alice, filters=selectors.ActionFilters(state=ActionState.WAITING))
    assert [row.pk for row in waiting.items] == [made[3]]
    with pytest.raises(RemitError, match=r"cursor\.invalid"):
        selectors.actions(principal=as_alice, cursor="'; DROP TABLE")


def test_one_action_comes_with_its_whole_story_in_few_queries(
    gate: Gate, as_dana: Principal, as_charlie: Principal, django_assert_num_queries: Any
) -> None:
    judgement = gate.propose(60)
    gate.decide(judgement, as_dana)
    gate.redeem(judgement)
    with django_assert_num_queries(5):
        action = selectors.action(principal=as_dana, action_id=judgement.action_id)
        assert [decision.verdict for decision in action.decisions.all()] == ["escalate", "allow", "allow"]
        assert [vote.user.name for row in action.escalations.all() for vote in row.votes.all()] == ["Dana"]
        assert len(action.permits.all()) == 1
    with pytest.raises(RemitError, match=r"action\.not_found"):
        selectors.action(principal=as_charlie, action_id=judgement.action_id)


def test_the_verdict_mix_counts_each_kind(gate: Gate, as_dana: Principal, as_charlie: Principal) -> None:
    start = gate.action(gate.propose(10)).created_at - timedelta(seconds=1)  # ids are drawn before the row is written
    for amount in (11, 60, 101, 102):
        gate.propose(amount)
    assert selectors.verdict_mix(as_dana, start) == {Verdict.ALLOW: 2, Verdict.ESCALATE: 1, Verdict.DENY: 2}
    assert set(selectors.verdict_mix(as_charlie, start).values()) == {0}
