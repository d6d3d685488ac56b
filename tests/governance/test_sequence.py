"""Each call may be fine and their sequence not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from controlplane.common.clock import now
from controlplane.tenancy.models import Organisation
from controlplane.tenancy.types import Principal
from governance import sequence, services
from governance.choices import ActionState, EscalationState, Verdict
from governance.models import Decision, Escalation
from governance.sequence import History
from governance.types import Judgement

from .gate import Gate
from .scene import Scene, make_run

pytestmark = pytest.mark.django_db


def propose(gate: Gate, *effects: str, **fields: Any) -> Judgement:
    gate.scene.effects = list(effects)
    return gate.propose(10, **fields)


def test_sending_out_after_reading_a_secret_asks_a_person(gate: Gate, as_dana: Principal) -> None:
    assert propose(gate, "egress").verdict is Verdict.ALLOW
    gate.redeem(propose(gate, "secret.read"))
    judgement = propose(gate, "egress")
    assert (judgement.verdict, judgement.reason_code) == (Verdict.ESCALATE, "sequence.egress_after_secret")
    assert gate.escalation(judgement).policies == [sequence.EGRESS_RULE]
    gate.decide(judgement, as_dana)
    assert gate.redeem(judgement).state == ActionState.EXECUTING
    assert propose(gate, "egress").verdict is Verdict.ESCALATE


def test_what_was_only_refused_leaves_no_trace(gate: Gate) -> None:
    gate.scene.tool_approved = False
    assert propose(gate, "secret.read").verdict is Verdict.DENY
    gate.scene.tool_approved = True
    assert propose(gate, "egress").verdict is Verdict.ALLOW


def test_what_another_run_read_is_not_held_against_this_one(gate: Gate, scene: Scene, northwind: Organisation) -> None:
    propose(gate, "secret.read", by=make_run(scene, northwind))
    assert propose(gate, "egress").verdict is Verdict.ALLOW


def test_effects_that_were_only_noticed_when_it_ran_count_too(gate: Gate) -> None:
    action = gate.redeem(propose(gate))
    services.record_outcome(
        holder=gate.run, action_id=action.pk, audience="mcp", outcome="success", effects=["secret.read"]
    )
    assert propose(gate, "egress").verdict is Verdict.ESCALATE


def test_the_tenth_deletion_within_five_minutes_is_refused(gate: Gate) -> None:
    verdicts = [propose(gate, "delete").verdict for _ in range(10)]
    assert verdicts == [Verdict.ALLOW] * 9 + [Verdict.DENY]
    assert propose(gate).verdict is Verdict.ALLOW


def test_deletions_of_long_ago_do_not_count(gate: Gate) -> None:
    from governance.models import Action

    for _ in range(9):
        propose(gate, "delete")
    Action.objects.update(created_at=now() - timedelta(minutes=6))
    assert propose(gate, "delete").verdict is Verdict.ALLOW


def test_many_small_blasts_add_up_to_a_question(gate: Gate) -> None:
    assert [propose(gate, "blast:40").verdict for _ in range(3)] == [Verdict.ALLOW, Verdict.ALLOW, Verdict.ESCALATE]


@pytest.mark.parametrize("label", ["blast:", "blast:many", "blast:-5", "blast:1e3", "blast:٣", "blast:99999999999"])
def test_a_blast_that_is_no_number_counts_as_everything(gate: Gate, label: str) -> None:
    assert propose(gate, label).verdict is Verdict.ESCALATE


def test_the_sequence_never_softens_what_was_said_before(gate: Gate) -> None:
    gate.redeem(propose(gate, "secret.read"))
    gate.scene.effects = ["egress"]
    judgement = gate.propose(60)
    assert judgement.verdict is Verdict.ESCALATE
    assert gate.escalation(judgement).policies == ["grant/0/ask", sequence.EGRESS_RULE]
    assert gate.propose(101).verdict is Verdict.DENY


def test_the_ladder_says_what_the_rules_saw(gate: Gate) -> None:
    propose(gate, "secret.read")
    judgement = propose(gate, "egress")
    stages = {stage["name"]: stage for stage in Decision.objects.get(action_id=judgement.action_id).stages}
    assert stages["sequence"]["saw"] == "Effects egress; before: secret.read."
    assert stages["sequence"]["verdict"] == "escalate"


@pytest.mark.parametrize(("effect", "before"), [("egress", ["secret.read"]), ("blast:40", ["blast:40", "blast:40"])])
def test_what_the_run_did_while_people_were_asked_is_a_new_question_and_not_a_wait_without_end(
    gate: Gate, as_dana: Principal, as_bob: Principal, effect: str, before: list[str]
) -> None:
    gate.scene.effects = [effect]
    judgement = gate.propose(60)
    for earlier in before:
        gate.redeem(propose(gate, earlier))
    gate.scene.effects = [effect]
    assert gate.decide(judgement, as_dana).state == EscalationState.SUPERSEDED
    assert gate.action(judgement).state == ActionState.WAITING
    second = Escalation.objects.get(action_id=judgement.action_id, state=EscalationState.OPEN)
    assert [second.policies] in ([[sequence.EGRESS_RULE]], [[sequence.BLAST_RULE]])
    services.decide(approver=as_bob, escalation_id=second.pk, version=second.version, approve=True, reason="")
    assert gate.redeem(judgement).state == ActionState.EXECUTING


def test_an_approval_that_comes_after_too_many_deletions_refuses_it(gate: Gate, as_dana: Principal) -> None:
    gate.scene.effects = ["delete"]
    judgement = gate.propose(60)
    for _ in range(9):
        propose(gate, "delete")
    assert gate.decide(judgement, as_dana).state == EscalationState.SUPERSEDED
    action = gate.action(judgement)
    assert (action.state, action.reason_code) == (ActionState.DENIED, "sequence.too_many_deletes")
    assert gate.scene.decided[-1] == (ActionState.DENIED, "Dana")
    assert gate.ledger.states.count("voided") == 1


def test_an_approval_of_the_egress_lifts_no_limit_on_deletions() -> None:
    history = History(effects=frozenset({"secret.read"}), recent_deletes=9)
    findings = sequence.check(effects=["egress", "delete"], history=history, approved={sequence.EGRESS_RULE})
    assert [finding.verdict for finding in findings] == [Verdict.DENY]
