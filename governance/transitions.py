"""Moving one action from state to state, with its hold and its entry. Conditional UPDATEs: a race has one winner."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from django.db import models

from controlplane.audit.events import Event
from controlplane.audit.services import record
from controlplane.common.clock import now
from controlplane.tenancy.types import Principal
from governance.announcing import action_changed
from governance.choices import ActionState
from governance.models import Action, Permit
from governance.registry import kind_of, ledger
from governance.rows import subject_of

# How long an approved action may wait for its agent to come back.
APPROVED_TTL_SECONDS: Final = 24 * 3600


def move(action: Action, *, sources: Collection[ActionState], to: ActionState, **changes: Any) -> bool:
    """Whether this call moved it. On success the instance says so too."""
    moved = Action.objects.filter(pk=action.pk, state__in=sources).update(state=to, **changes)
    if moved:
        for name, value in {"state": to, **changes}.items():
            setattr(action, name, value)
    return bool(moved)


def lock_subject(action: Action) -> None:
    """First in a transaction that ends a question: what the action's kind will change then, as a stop takes it."""
    kind_of(action.kind).lock(subject_id=action.subject_id)


def withdrawal(*, actor: Principal, reason: str) -> dict[str, Any]:
    """What a withdrawn action says of itself, to whoever asks how it stands."""
    return {
        "reason_code": "action.withdrawn",
        "message": f"Withdrawn: {reason}"[:500] if reason else f"Withdrawn by {actor.name}.",
        "remedies": ["Go on with other work; ask again only if it is still needed."],
    }


def close_unperformed(
    action: Action,
    *,
    source: ActionState,
    to: ActionState,
    actor: Principal,
    event: Event,
    payload: Mapping[str, Any],
    **changes: Any,
) -> bool:
    """An open action ends without ever running: permits die, the hold is released, its kind hears of it. `changes`: its
    columns that say why."""
    moment = now()
    void_permits(action_ids=[action.pk], moment=moment)
    if not move(action, sources=[source], to=to, ended_at=moment, **changes):
        return False
    if action.hold_id is not None:
        ledger().void(hold_id=action.hold_id)
    kind_of(action.kind).on_decided(action_id=action.pk, state=to, actor=actor)
    record(event=event, actor=actor, subject=subject_of(action), payload=payload)
    action_changed(action)
    return True


def perform_at_once(action: Action, *, actor: Principal) -> None:
    """An action without a tool is done by its kind when it is decided: nobody outside runs it, so it ends here."""
    kind_of(action.kind).on_decided(action_id=action.pk, state=ActionState.PERMITTED, actor=actor)
    if action.tool:
        return
    cost = settle_hold(action, money=None)
    move(
        action,
        sources=[ActionState.PERMITTED],
        to=ActionState.SUCCEEDED,
        ended_at=now(),
        cost=cost,
        outcome={"outcome": "success", "result_sha256": "", "summary": "", "effects": [], "error": ""},
    )
    record(event=Event.ACTION_SUCCEEDED, actor=actor, subject=subject_of(action), payload={"digest": action.digest})


def settle_hold(action: Action, *, money: Decimal | None) -> Decimal:
    """What was charged. A hold that was never dispatched is dispatched first."""
    if action.hold_id is None:
        return Decimal(0)
    if action.executing_at is None:
        ledger().dispatch(hold_id=action.hold_id)
    return ledger().settle(hold_id=action.hold_id, money=money)


def void_permits(*, action_ids: Collection[uuid.UUID], moment: datetime) -> int:
    return live_permits().filter(action_id__in=action_ids).update(voided_at=moment)


def live_permits() -> models.QuerySet[Permit]:
    return Permit.objects.filter(consumed_at__isnull=True, voided_at__isnull=True)
