"""Editing and approving: what was edited is judged, counted and recorded as any other action."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from controlplane.audit.models import Entry
from controlplane.common.clock import now
from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Principal
from governance import services
from governance.choices import ActionState, EscalationState, Verdict
from governance.models import Action, Permit, Vote
from governance.services import Route
from governance.types import Finding, HoldRefused

from .gate import Gate
from .questions import everything

pytestmark = pytest.mark.django_db


def edit(gate: Gate, judgement: Any, approver: Principal, amount: object, **fields: Any) -> services.Edited:
    row = gate.escalation(judgement)
    values: dict[str, Any] = {
        "approver": approver,
        "escalation_id": row.pk,
        "version": row.version,
        "arguments": {"amount": amount, "invoice": "INV-0113"},
        "reason": "Less is enough.",
    }
    return services.edit_and_approve(**{**values, **fields})


def test_an_edited_action_is_another_one_judged_like_any_other(gate: Gate, as_dana: Principal) -> None:
    judgement = gate.propose(90)
    edited = edit(gate, judgement, as_dana, 60)
    first, second = gate.action(judgement), edited.action
    assert (first.state, first.reason_code) == (ActionState.WITHDRAWN, "action.replaced")
    assert "amount 90 → 60" in first.message
    assert (second.state, second.replaces_id) == (ActionState.PERMITTED, first.pk)
    assert second.digest != first.digest
    assert (second.proposer_id, second.run_id, second.agent_id) == (first.proposer_id, first.run_id, first.agent_id)
    assert gate.escalation(judgement).state == EscalationState.SUPERSEDED
    assert edited.escalation is not None
    assert edited.escalation.state == EscalationState.APPROVED
    assert Vote.objects.get().escalation_id == edited.escalation.pk
    assert gate.ledger.states == ["held", "voided"]
    events = list(Entry.objects.filter(subject_id=first.pk).values_list("event", flat=True))
    assert "action.edited" in events
    done = services.redeem(holder=gate.run, action_id=second.pk, audience="mcp")
    assert (done.state, done.arguments["amount"]) == (ActionState.EXECUTING, 60)


def test_an_edit_that_needs_nobody_any_more_is_permitted_and_waits_for_its_agent(
    gate: Gate, as_dana: Principal
) -> None:
    judgement = gate.propose(90)
    edited = edit(gate, judgement, as_dana, 10)
    assert edited.escalation is None
    assert edited.action.state == ActionState.PERMITTED
    assert not Permit.objects.exists()
    vote = Vote.objects.get()
    assert (vote.escalation_id, vote.digest) == (gate.escalation(judgement).pk, edited.action.digest)
    Action.objects.filter(pk=edited.action.pk).update(decided_at=now() - timedelta(hours=2))
    services.sweep()
    done = services.redeem(holder=gate.run, action_id=edited.action.pk, audience="mcp")
    assert done.state == ActionState.EXECUTING


def test_whoever_answered_before_may_still_edit_into_what_needs_nobody(
    gate: Gate, as_nadia: Principal, as_dana: Principal
) -> None:
    services.save_route(actor=as_nadia, route=Route(name="Two", needed=2))
    judgement = gate.propose(90)
    gate.decide(judgement, as_dana)
    assert edit(gate, judgement, as_dana, 10).action.state == ActionState.PERMITTED
    assert Vote.objects.get().digest == gate.action(judgement).digest  # an answer is never changed


def test_an_edit_beyond_the_grant_is_refused_with_its_reason(gate: Gate, as_dana: Principal) -> None:
    gate.scene.denial = Finding(Verdict.DENY, "grant.argument_above_limit", "At most 100.")
    judgement = gate.propose(90)
    before = everything()
    with pytest.raises(RemitError) as caught:
        edit(gate, judgement, as_dana, 101)
    assert (caught.value.code, caught.value.status) == ("edit.refused", 422)
    assert "At most 100." in caught.value.message
    assert everything() == before
    assert gate.ledger.states == ["held"]


@pytest.mark.parametrize("trouble", ["guard", "sequence", "budget"])
def test_every_stage_is_asked_of_an_edited_action(gate: Gate, as_dana: Principal, trouble: str) -> None:
    judgement = gate.propose(90)
    if trouble == "guard":
        gate.scene.guards = [Finding(Verdict.DENY, "mission.ended", "This mission is over.")]
    elif trouble == "budget":
        gate.ledger.refusal = HoldRefused("budget.exhausted", "Nothing is left.")
    else:
        gate.scene.effects = [f"blast:{10**6}", "delete"]
        gate.scene.guards = [Finding(Verdict.DENY, "sequence.blast", "Too many objects.")]
    before = everything()
    with pytest.raises(RemitError, match=r"edit\.refused"):
        edit(gate, judgement, as_dana, 60)
    assert everything() == before


def test_earlier_votes_are_void_and_the_editors_is_the_first_of_the_new_question(
    gate: Gate, as_nadia: Principal, as_dana: Principal, as_bob: Principal
) -> None:
    services.save_route(actor=as_nadia, route=Route(name="Two", needed=2))
    judgement = gate.propose(90)
    gate.decide(judgement, as_bob)
    edited = edit(gate, judgement, as_dana, 60)
    assert edited.escalation is not None
    assert (edited.escalation.state, edited.action.state) == (EscalationState.OPEN, ActionState.WAITING)
    assert [vote.user_id for vote in edited.escalation.votes.all()] == [as_dana.id]
    services.decide(
        approver=as_bob,
        escalation_id=edited.escalation.pk,
        version=edited.escalation.version,
        approve=True,
        reason="",
    )
    edited.action.refresh_from_db()
    assert edited.action.state == ActionState.PERMITTED


def test_an_edit_and_a_vote_at_once_have_one_winner(gate: Gate, as_dana: Principal, as_bob: Principal) -> None:
    judgement = gate.propose(90)
    edit(gate, judgement, as_dana, 60)
    with pytest.raises(RemitError, match=r"escalation\.closed"):
        gate.decide(judgement, as_bob, version=1)
    with pytest.raises(RemitError, match=r"escalation\.closed"):
        edit(gate, judgement, as_bob, 61, version=1)
    assert Action.objects.count() == 2
    other = gate.propose(90)
    with pytest.raises(RemitError, match=r"escalation\.changed"):
        edit(gate, other, as_bob, 61, version=7)


def test_four_eyes_hold_for_editors_too(gate: Gate, as_dana: Principal, as_finn: Principal) -> None:
    gate.scene.excluded = [as_dana.id]
    judgement = gate.propose(90)
    before = everything()
    for person in (as_dana, as_finn):
        with pytest.raises(RemitError):
            edit(gate, judgement, person, 60)
    assert everything() == before


def test_a_preview_writes_nothing_and_says_what_the_gate_would(gate: Gate, as_dana: Principal) -> None:
    key = gate.escalation(gate.propose(90)).pk
    before = everything()
    for amount, verdict in ((60, Verdict.ESCALATE), (10, Verdict.ALLOW), (101, Verdict.DENY)):
        seen = services.preview_edit(
            approver=as_dana, escalation_id=key, arguments={"amount": amount, "invoice": "INV-0113"}
        )
        assert seen.finding.verdict is verdict
        assert [(change.path, change.before, change.after) for change in seen.changes] == [
            ("amount", "90", str(amount))
        ]
    with pytest.raises(RemitError, match=r"edit\.nothing_changed"):
        services.preview_edit(approver=as_dana, escalation_id=key, arguments={"invoice": "INV-0113", "amount": 90})
    assert everything() == before


@pytest.mark.parametrize("arguments", [{"amount": float("nan")}, {"amount": 2**60}, {"a": "\x00"}, {"ａ": 1}])
def test_an_edit_is_checked_like_any_proposal(gate: Gate, as_dana: Principal, arguments: dict[str, Any]) -> None:
    judgement = gate.propose(90)
    before = everything()
    with pytest.raises(RemitError):
        edit(gate, judgement, as_dana, 0, arguments=arguments)
    assert everything() == before


def test_what_one_action_replaced_never_changes(gate: Gate, as_dana: Principal) -> None:
    edited = edit(gate, gate.propose(90), as_dana, 60)
    with pytest.raises(IntegrityError), transaction.atomic():
        Action.objects.filter(pk=edited.action.pk).update(replaces=None)
