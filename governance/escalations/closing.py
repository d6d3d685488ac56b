"""How a question ends without an answer: withdrawn with its action, expired, superseded."""

from __future__ import annotations

import uuid
from typing import Final

from django.db import transaction
from django.db.models import F

from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.common.clock import now
from controlplane.common.errors import conflict, not_found
from controlplane.tenancy.types import Permission, Principal
from governance.announcing import inbox_changed
from governance.choices import ActionState, EscalationState
from governance.models import Action, Escalation
from governance.transitions import close_unperformed, lock_subject, withdrawal

LONGEST_REASON: Final = 500
_OPEN: Final = (ActionState.WAITING, ActionState.PERMITTED)
_ASKING: Final = (Permission.MISSION_OPERATE, Permission.BUDGET_WRITE)  # what people need to ask for something
_ATTEMPTS: Final = 3


def withdraw(*, actor: Principal, action_id: uuid.UUID, reason: str = "") -> Action:
    """Take back a waiting or permitted action: by who proposed it, or by a person who operates its mission."""
    action = Action.objects.restrict(actor, Permission.ACTION_VIEW).filter(pk=action_id).first()
    # A token that could not have asked takes nothing back.
    asked = not actor.is_narrowed or any(map(actor.has_anywhere, _ASKING))
    if action is None or not asked or not action.was_asked_for_by(actor):
        action = Action.objects.restrict(actor, Permission.MISSION_OPERATE).filter(pk=action_id).first()
    if action is None:
        raise not_found("action")
    for _ in range(_ATTEMPTS):
        with transaction.atomic():
            lock_subject(action)
            if withdraw_open(action, actor=actor, reason=reason.strip()[:LONGEST_REASON]):
                return action
            transaction.set_rollback(True)
        action.refresh_from_db()  # it may have been approved meanwhile: then that is withdrawn
        if action.state not in _OPEN:
            break
    raise conflict(
        "action.not_open", "This action is no longer waiting or permitted.", "Reload the page.", state=action.state
    )


def withdraw_open(action: Action, *, actor: Principal, reason: str) -> bool:
    """Inside a transaction: whether the action was open and is withdrawn now, with its escalation, permit and hold."""
    source = ActionState(action.state)
    if source not in _OPEN:
        return False
    close_escalation(
        action,
        to=EscalationState.WITHDRAWN,
        event=Event.ESCALATION_WITHDRAWN,
        actor=actor,
        reason=reason or f"by {actor.name}",
    )
    return close_unperformed(
        action,
        source=source,
        to=ActionState.WITHDRAWN,
        actor=actor,
        event=Event.ACTION_WITHDRAWN,
        payload={"reason": reason, "digest": action.digest},
        **withdrawal(actor=actor, reason=reason),
    )


def close_escalation(action: Action, *, to: EscalationState, event: Event, actor: Principal, reason: str) -> bool:
    """Inside a transaction: close the open escalation of an action, if it has one that is still open. `reason`: why it
    is over, in the place of why it was asked."""
    row = Escalation.objects.filter(action=action, state=EscalationState.OPEN).first()
    if row is None:
        return False
    closed = Escalation.objects.filter(pk=row.pk, state=EscalationState.OPEN).update(
        state=to, version=F("version") + 1, closed_at=now(), reason=reason
    )
    if closed:
        record(event=event, actor=actor, subject=subject_of_escalation(row), payload={"reason": reason})
        inbox_changed(action)
    return bool(closed)


def subject_of_escalation(escalation: Escalation) -> Subject:
    return Subject(
        "escalation",
        escalation.pk,
        escalation.title,
        team_id=escalation.team_id,
        mission_id=escalation.mission_id,
    )
