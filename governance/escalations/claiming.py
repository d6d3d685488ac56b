"""A claim says who is at work on a question, for a few minutes; it is renewed while they are, and ends by itself."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Final

from django.db import transaction
from django.db.models import Q

from controlplane.audit.events import Event
from controlplane.audit.services import record
from controlplane.common.clock import now
from controlplane.common.errors import conflict
from controlplane.tenancy.types import Principal
from governance.announcing import inbox_changed
from governance.choices import EscalationState
from governance.escalations.closing import subject_of_escalation
from governance.escalations.deciding import check_open, decidable, is_claimed
from governance.models import Escalation

LEASE_SECONDS: Final = 180


def claim(*, actor: Principal, escalation_id: uuid.UUID, take_over: bool = False) -> Escalation:
    """Say that you are at work on it, or go on saying so. Only who may decide it claims it.

    Raises 404, 403 as `decide`; 409 `escalation.claimed` when somebody else holds it and `take_over` is not asked for,
    `escalation.closed | expired`.
    """
    escalation = decidable(actor, escalation_id)
    check_open(escalation, escalation.version)
    moment = now()
    others = is_claimed(escalation) and escalation.claimed_by_id != actor.user_id
    free = Q(claimed_by__isnull=True) | Q(claimed_until__lte=moment) | Q(claimed_by_id=actor.user_id)
    rows = Escalation.objects.filter(pk=escalation.pk, state=EscalationState.OPEN)
    if others and take_over:
        free |= Q(claimed_by_id=escalation.claimed_by_id)
    claimant = escalation.claimed_by.name if escalation.claimed_by else ""
    with transaction.atomic():
        won = rows.filter(free).update(
            claimed_by_id=actor.user_id, claimed_until=moment + timedelta(seconds=LEASE_SECONDS)
        )
        if not won:
            escalation.refresh_from_db()
            check_open(escalation, escalation.version)
            raise conflict(
                "escalation.claimed",
                f"{escalation.claimed_by} is at work on this.",
                "Wait until they are done, or take it over.",
            )
        if others:
            record(
                event=Event.ESCALATION_TAKEN_OVER,
                actor=actor,
                subject=subject_of_escalation(escalation),
                payload={"claimant": claimant},
            )
        if escalation.claimed_by_id != actor.user_id or not is_claimed(escalation):
            inbox_changed(escalation.action)  # a renewal changes nothing that anybody else sees
    escalation.refresh_from_db()
    return escalation


def release(*, actor: Principal, escalation_id: uuid.UUID) -> Escalation:
    """Say that you are not at work on it any more. Raises 404, 403 as `decide`; nothing is done to another's claim."""
    escalation = decidable(actor, escalation_id)
    with transaction.atomic():
        mine = Escalation.objects.filter(
            pk=escalation.pk, state=EscalationState.OPEN, claimed_by_id=actor.user_id
        ).update(claimed_by=None, claimed_until=None)
        if mine:
            inbox_changed(escalation.action)
    escalation.refresh_from_db()
    return escalation
