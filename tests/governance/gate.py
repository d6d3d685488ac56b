"""What tests do at the gate: propose, redeem, decide, and look at what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from controlplane.audit.models import Entry
from controlplane.tenancy.types import Principal
from governance import services
from governance.models import Action, Escalation
from governance.types import Judgement, Proposal

from .counting_ledger import CountingLedger
from .scene import TOOL, Scene


@dataclass
class Gate:
    """What the tests do at the gate's public edge."""

    scene: Scene
    ledger: CountingLedger
    run: Principal

    def propose(self, amount: object = 10, *, by: Principal | None = None, **fields: Any) -> Judgement:
        return services.propose(proposer=by or self.run, proposal=self.proposal(amount, **fields))

    def proposal(self, amount: object = 10, **fields: Any) -> Proposal:
        values: dict[str, Any] = {
            "kind": "test.call",
            "tool": TOOL,
            "arguments": {"amount": amount, "invoice": "INV-0113"},
            "audience": "mcp",
        }
        return Proposal(**{**values, **fields})

    def redeem(self, judgement: Judgement, **fields: Any) -> Action:
        values: dict[str, Any] = {
            "holder": self.run,
            "action_id": judgement.action_id,
            "audience": "mcp",
            "permit_token": judgement.permit.token if judgement.permit else None,
        }
        return services.redeem(**{**values, **fields})

    def escalation(self, judgement: Judgement) -> Escalation:
        assert judgement.escalation is not None
        return Escalation.objects.get(pk=judgement.escalation.id)

    def decide(self, judgement: Judgement, approver: Principal, *, approve: bool = True, **fields: Any) -> Escalation:
        escalation = self.escalation(judgement)
        values: dict[str, Any] = {
            "approver": approver,
            "escalation_id": escalation.pk,
            "version": escalation.version,
            "approve": approve,
            "reason": "looks right",
        }
        return services.decide(**{**values, **fields})

    def action(self, judgement: Judgement) -> Action:
        return Action.objects.get(pk=judgement.action_id)

    def events(self, judgement: Judgement) -> list[str]:
        """Audit events of the action, oldest first."""
        return list(Entry.objects.filter(subject_id=judgement.action_id).order_by("id").values_list("event", flat=True))
