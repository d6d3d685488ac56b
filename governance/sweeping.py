"""What time does: deadlines, lapsed permits, silence; and closing everything open when a mission stops."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import OuterRef, Q, Subquery

from controlplane.audit.events import Event
from controlplane.common.clock import now
from controlplane.tenancy.types import Principal, system_principal
from governance import permits
from governance.approval_models import BreakGlass
from governance.choices import ActionState, EscalationState
from governance.escalations.closing import close_escalation, withdraw_open
from governance.escalations.tiers import go_on, out_of_reach
from governance.models import Action, Decision, Escalation
from governance.outcomes import lose_track
from governance.transitions import (
    APPROVED_TTL_SECONDS,
    close_unperformed,
    live_permits,
    lock_subject,
)

log = structlog.get_logger(__name__)

_BATCH: Final = 200


@dataclass(frozen=True)
class SweepCounts:
    escalations_expired: int = 0
    permits_expired: int = 0
    outcomes_lost: int = 0
    tiers_passed: int = 0


@dataclass(frozen=True)
class VoidCounts:
    actions: int = 0
    escalations: int = 0
    permits: int = 0


def sweep() -> SweepCounts:
    """One pass. Two workers at once share the work: each row is claimed by a lock and moved by a conditional UPDATE."""
    return SweepCounts(
        tiers_passed=_each(_overdue_tiers(), _pass_on),
        escalations_expired=_each(_overdue_escalations(), _expire_escalation),
        permits_expired=_each(_lapsed_actions(), _expire_permitted),
        outcomes_lost=_each(_silent_actions(), _lose_track),
    )


def void_open(
    *,
    actor: Principal,
    reason: str,
    mission_id: uuid.UUID | None = None,
    run_id: uuid.UUID | None = None,
    agent_id: uuid.UUID | None = None,
    kinds: Collection[str] = (),
) -> VoidCounts:
    """Stop and pause: permits die, questions are withdrawn, holds are released. What runs already is not touched here.
    With `kinds`, only actions of these.

    Call it in the transaction that changes the mission's state, after that change.
    """
    which = {"mission_id": mission_id, "run_id": run_id, "agent_id": agent_id}
    named = {name: value for name, value in which.items() if value is not None}
    if not named:
        raise ValueError("say whose actions")
    with transaction.atomic():
        actions = list(
            Action.objects.filter(
                organisation_id=actor.organisation_id,
                state__in=[ActionState.WAITING, ActionState.PERMITTED],
                **named,
                **({"kind__in": list(kinds)} if kinds else {}),
            ).order_by("id")
        )
        identifiers = [action.pk for action in actions]
        questions = Escalation.objects.filter(action_id__in=identifiers, state=EscalationState.OPEN).count()
        live = live_permits().filter(action_id__in=identifiers).count()
        withdrawn = sum(withdraw_open(action, actor=actor, reason=reason) for action in actions)
    return VoidCounts(actions=withdrawn, escalations=questions, permits=live)


def _each(identifiers: Iterable[uuid.UUID], settle: Callable[[uuid.UUID], bool]) -> int:
    """Each in a transaction of its own: one that fails keeps no other from being settled."""
    settled = 0
    for identifier in identifiers:
        try:
            with transaction.atomic():
                settled += settle(identifier)
        except Exception as error:
            log.exception("governance.sweep_failed", id=str(identifier), error=str(error))
    return settled


def _overdue_tiers() -> list[uuid.UUID]:
    """First tiers whose time is over, or whose quorum can't be reached any more."""
    waiting = Escalation.objects.filter(state=EscalationState.OPEN, tier=1, tier_ends_at__isnull=False)
    soonest = list(waiting.select_related("action").order_by("tier_ends_at")[:_BATCH])
    late = [row.pk for row in soonest if row.tier_ends_at and row.tier_ends_at <= now()]
    by_organisation: dict[uuid.UUID, list[Escalation]] = {}
    for row in soonest:
        if row.pk not in late:
            by_organisation.setdefault(row.organisation_id, []).append(row)
    return late + [row.pk for rows in by_organisation.values() for row in out_of_reach(rows)]


def _pass_on(escalation_id: uuid.UUID) -> bool:
    row = Escalation.objects.select_related("action").get(pk=escalation_id)
    late = row.tier_ends_at is not None and row.tier_ends_at <= now()
    return go_on(row, reason="its time was over" if late else "too few were left to answer")


def _overdue_escalations() -> list[uuid.UUID]:
    overdue = Escalation.objects.filter(state=EscalationState.OPEN, expires_at__lte=now())
    return list(overdue.order_by("expires_at").values_list("pk", flat=True)[:_BATCH])


def _expire_escalation(escalation_id: uuid.UUID) -> bool:
    lock_subject(Action.objects.get(escalations=escalation_id))
    escalation = (
        Escalation.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("action")
        .filter(pk=escalation_id, state=EscalationState.OPEN, expires_at__lte=now())
        .first()
    )
    if escalation is None:
        return False
    system = system_principal(organisation_id=escalation.organisation_id)
    action = escalation.action
    why = "nobody answered in time"
    close_escalation(action, to=EscalationState.EXPIRED, event=Event.ESCALATION_EXPIRED, actor=system, reason=why)
    Action.objects.filter(pk=action.pk, state=ActionState.WAITING).update(
        reason_code="escalation.expired",
        message="Nobody decided this in time, so it is refused.",
        remedies=["Ask again, and tell an approver that you wait."],
        decided_at=now(),
    )
    return close_unperformed(
        action,
        source=ActionState.WAITING,
        to=ActionState.EXPIRED,
        actor=system,
        event=Event.ACTION_DENIED,
        payload={"reason_code": "escalation.expired", "digest": action.digest},
    )


def _lapsed_actions() -> list[uuid.UUID]:
    """Permitted, never redeemed: a permit's minute is over, or an approval's day."""
    moment = now()
    approvals = Decision.objects.filter(action=OuterRef("pk")).order_by("-id").values("approved_policies")[:1]
    questions = Escalation.objects.filter(action=OuterRef("pk")).order_by("-id").values("pk")[:1]
    glass = BreakGlass.objects.filter(escalation=OuterRef("question")).values("usable_until")[:1]
    permitted = Action.objects.filter(
        state=ActionState.PERMITTED, decided_at__lte=moment - timedelta(seconds=permits.TTL_SECONDS)
    ).annotate(approved=Subquery(approvals), question=Subquery(questions))
    lapsed = permitted.annotate(usable_until=Subquery(glass)).filter(
        Q(approved=[], replaces__isnull=True)
        | Q(decided_at__lte=moment - timedelta(seconds=APPROVED_TTL_SECONDS))
        | Q(usable_until__lte=moment)
    )
    return list(lapsed.order_by("decided_at").values_list("pk", flat=True)[:_BATCH])


def _expire_permitted(action_id: uuid.UUID) -> bool:
    # The permit is locked before the action, as in `redeem`: whoever comes second finds it consumed or voided.
    list(live_permits().select_for_update().filter(action_id=action_id))
    action = Action.objects.filter(pk=action_id, state=ActionState.PERMITTED).first()
    if action is None:
        return False
    Action.objects.filter(pk=action.pk, state=ActionState.PERMITTED).update(
        reason_code="permit.expired",
        message="It was allowed and nobody carried it out before its permit expired. Nothing was done.",
        remedies=["Propose it again and execute it at once, or make the call through MCP, which does both."],
    )
    return close_unperformed(
        action,
        source=ActionState.PERMITTED,
        to=ActionState.EXPIRED,
        actor=system_principal(organisation_id=action.organisation_id),
        event=Event.PERMIT_REFUSED,
        payload={"reason_code": "permit.expired", "digest": action.digest},
    )


def _silent_actions() -> list[uuid.UUID]:
    limit = now() - timedelta(seconds=settings.CONFIG.executing_limit_seconds)
    silent = Action.objects.filter(state=ActionState.EXECUTING, executing_at__lte=limit)
    return list(silent.order_by("executing_at").values_list("pk", flat=True)[:_BATCH])


def _lose_track(action_id: uuid.UUID) -> bool:
    action = Action.objects.filter(pk=action_id, state=ActionState.EXECUTING).first()
    if action is None:
        return False
    return lose_track(
        action,
        actor=system_principal(organisation_id=action.organisation_id),
        reason=f"No outcome was reported within {settings.CONFIG.executing_limit_seconds} seconds.",
    )
