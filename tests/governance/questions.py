"""What the tests of questions share: breaking the glass over one, and everything that a refusal leaves as it was."""

from __future__ import annotations

from typing import Any

from controlplane.audit.models import Entry
from controlplane.tenancy.types import Principal
from governance import services
from governance.approval_models import BreakGlass
from governance.models import Action, Decision, Escalation, Vote

from .conftest import Gate

EMERGENCY = "The payment run closes in five minutes."


def everything() -> tuple[Any, ...]:
    return (
        list(Action.objects.order_by("id").values_list("id", "state")),
        list(Escalation.objects.order_by("id").values_list("id", "state", "version")),
        Vote.objects.count(),
        Decision.objects.count(),
        Entry.objects.count(),
    )


def smash(gate: Gate, judgement: Any, actor: Principal, **fields: Any) -> BreakGlass:
    row = gate.escalation(judgement)
    values: dict[str, Any] = {
        "actor": actor,
        "escalation_id": row.pk,
        "version": row.version,
        "reason": EMERGENCY,
    }
    return services.break_glass(**{**values, **fields})
