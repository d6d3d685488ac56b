"""Tool calls that tests propose, one for each verdict, and what became of them."""

from __future__ import annotations

from controlplane.tenancy.types import Principal
from governance import services as governance
from governance.models import Action, Escalation

CREDIT = {"kind": "tool.call", "tool": "books__apply_credit", "arguments": {"invoice": "INV-1", "amount": "40.00"}}
LARGE_CREDIT = {**CREDIT, "arguments": {"invoice": "INV-2", "amount": "250.00"}}
TOO_LARGE_CREDIT = {**CREDIT, "arguments": {"invoice": "INV-3", "amount": "900.00"}}
FORBIDDEN = {"kind": "tool.call", "tool": "books__delete_everything", "arguments": {}}


def count() -> int:
    """Tool calls; starting the mission was an action too."""
    return Action.objects.filter(kind="tool.call").count()


def the_call() -> Action:
    return Action.objects.get(kind="tool.call")


def approve(approver: Principal, action_id: str, *, agree: bool = True) -> None:
    question = Escalation.objects.get(action_id=action_id)
    governance.decide(
        approver=approver, escalation_id=question.pk, version=question.version, approve=agree, reason="as agreed"
    )
