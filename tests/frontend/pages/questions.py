"""What the tests of questions share: an edit as its form sends it, and everything that a refusal leaves as it was."""

from __future__ import annotations

from typing import Any

from governance.approval_models import BreakGlass, EscalationMessage
from governance.models import Action, Decision, Escalation, Vote


def facts() -> tuple[Any, ...]:
    return (
        list(Action.objects.order_by("id").values_list("id", "state")),
        list(Escalation.objects.order_by("id").values_list("id", "state", "version", "claimed_by")),
        Vote.objects.count(),
        Decision.objects.count(),
        EscalationMessage.objects.count(),
        BreakGlass.objects.count(),
    )


def edited(amount: str, do: str, **more: str) -> dict[str, str]:
    return {"arg0": amount, "arg1": "Delivered 9 days late", "arg2": "INV-0131", "do": do, "version": "1", **more}
