"""One action, in any order of deciding, redeeming, reporting, stopping and sweeping: what must always hold."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from controlplane.audit.models import Entry
from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Principal
from governance import services
from governance.choices import TERMINAL_ACTION_STATES, ActionState, EscalationState
from governance.models import Action, Decision, Escalation, Permit
from governance.types import Judgement

from .gate import Gate


class PermitMachine(RuleBasedStateMachine):
    gate: Gate
    approver: Principal
    operator: Principal

    @initialize(amount=st.sampled_from([10, 60, 101]))
    def propose(self, amount: int) -> None:
        self.savepoint = transaction.atomic()
        self.savepoint.__enter__()
        scene = self.gate.scene
        scene.mission_active, scene.tool_sha256 = True, "sha256:aa"
        self.needs_approval = amount == 60
        self.judgement: Judgement = self.gate.propose(amount)
        self.started = 0
        self.seen = [self.action.state]

    @property
    def action(self) -> Action:
        return Action.objects.get(pk=self.judgement.action_id)

    def attempt(self, call: Any) -> bool:
        """Whether it was done; a refusal by name is fine, anything else is a fault."""
        try:
            with transaction.atomic():
                call()
        except RemitError:
            return False
        finally:
            self.seen.append(self.action.state)
        return True

    @rule(with_token=st.booleans())
    def redeem(self, with_token: bool) -> None:
        fields = {} if with_token else {"permit_token": None}
        # Refusals of `redeem` are written and then raised, so it must not be rolled back around.
        try:
            self.gate.redeem(self.judgement, **fields)
            self.started += 1
        except RemitError:
            pass
        self.seen.append(self.action.state)

    @rule(approve=st.booleans())
    def decide(self, approve: bool) -> None:
        escalation = Escalation.objects.filter(action_id=self.judgement.action_id).order_by("-id").first()
        if escalation is None:
            return
        self.attempt(
            lambda: services.decide(
                approver=self.approver,
                escalation_id=escalation.pk,
                version=escalation.version,
                approve=approve,
                reason="because",
            )
        )

    @rule(outcome=st.sampled_from(["success", "failure", "unknown"]))
    def report(self, outcome: str) -> None:
        self.attempt(
            lambda: services.record_outcome(
                holder=self.gate.run, action_id=self.judgement.action_id, audience="mcp", outcome=outcome
            )
        )

    @rule()
    def stop(self) -> None:
        self.attempt(
            lambda: services.void_open(mission_id=self.gate.scene.mission_id, actor=self.operator, reason="stopped")
        )

    @rule()
    def withdraw(self) -> None:
        self.attempt(lambda: services.withdraw(actor=self.gate.run, action_id=self.judgement.action_id))

    @rule()
    def reconcile(self) -> None:
        self.attempt(
            lambda: services.reconcile(
                actor=self.operator, action_id=self.judgement.action_id, outcome="success", reason="seen"
            )
        )

    @precondition(lambda self: self.gate.scene.tool_sha256 == "sha256:aa")
    @rule()
    def change_the_tool(self) -> None:
        self.gate.scene.tool_sha256 = "sha256:bb"

    @rule()
    def sweep(self) -> None:
        services.sweep()
        self.seen.append(self.action.state)

    @invariant()
    def starts_at_most_once_and_only_with_leave(self) -> None:
        if not hasattr(self, "judgement"):
            return
        permits = Permit.objects.filter(action_id=self.judgement.action_id)
        consumed = permits.filter(consumed_at__isnull=False).count()
        assert self.started == consumed <= 1
        assert Entry.objects.filter(subject_id=self.judgement.action_id, event="permit.consumed").count() == consumed
        if self.started:
            last = Decision.objects.filter(action_id=self.judgement.action_id).latest("id")
            assert last.verdict == "allow"
            assert ("grant/0/ask" in last.approved_policies) == self.needs_approval

    @invariant()
    def ended_is_ended(self) -> None:
        if not hasattr(self, "judgement"):
            return
        for before, after in zip(self.seen, self.seen[1:], strict=False):
            if before in TERMINAL_ACTION_STATES and before != ActionState.UNKNOWN:
                assert after == before

    @invariant()
    def the_hold_follows_the_action(self) -> None:
        if not hasattr(self, "judgement"):
            return
        action = self.action
        expected = {
            ActionState.WAITING: ["held"],
            ActionState.PERMITTED: ["held"],
            ActionState.EXECUTING: ["dispatched"],
            ActionState.UNKNOWN: ["dispatched"],
            ActionState.SUCCEEDED: ["settled"],
            ActionState.FAILED: ["settled"],
        }.get(ActionState(action.state), ["voided"])
        assert self.gate.ledger.states == ([] if action.hold_id is None else expected)
        open_questions = Escalation.objects.filter(action=action, state=EscalationState.OPEN).count()
        assert open_questions == (1 if action.state == ActionState.WAITING else 0)
        if action.state != ActionState.PERMITTED:
            assert not Permit.objects.filter(action=action, consumed_at__isnull=True, voided_at__isnull=True).exists()

    def teardown(self) -> None:
        if hasattr(self, "savepoint"):
            transaction.set_rollback(True)
            self.savepoint.__exit__(None, None, None)


@pytest.mark.django_db
def test_permits_hold_whatever_happens_in_whatever_order(gate: Gate, as_dana: Principal, as_alice: Principal) -> None:
    class Machine(PermitMachine):
        pass

    Machine.gate, Machine.approver, Machine.operator = gate, as_dana, as_alice
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=12,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
