"""What tests of questions share: whom one waits for, breaking the glass over it, and what a refusal leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from controlplane.audit.models import Entry
from controlplane.common.errors import RemitError
from controlplane.tenancy.types import Principal
from governance import selectors, services
from governance.approval_models import ApproverGroup, BreakGlass
from governance.models import Action, Decision, Escalation, Vote

from .gate import Gate

MakeGroup = Callable[..., ApproverGroup]
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


def refused(gate: Gate, judgement: Any, approver: Principal, **fields: Any) -> RemitError:
    before = (Vote.objects.count(), gate.escalation(judgement).version, gate.action(judgement).state)
    with pytest.raises(RemitError) as caught:
        gate.decide(judgement, approver, **fields)
    assert (Vote.objects.count(), gate.escalation(judgement).version, gate.action(judgement).state) == before
    return caught.value


def waits_for(people: Sequence[Principal], judgement: Any) -> list[str]:
    return [
        person.name
        for person in people
        if judgement.escalation.id in {row.pk for row in selectors.escalations_waiting_for(person)}
    ]
