"""The life of a mission that was started: paused, resumed, ended. Every step is a conditional update with its audit
entry."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import structlog
from django.db import transaction

from agents import stops
from agents.choices import ENDED_MISSION_STATES, CheckState, MissionState, Outcome, StopScope
from agents.models import Mission
from agents.services import runs, stopping
from agents.services.telling import settle_claims, tell_owners
from budgets import services as budgets
from controlplane.audit import selectors as audit
from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, RemitError, conflict, invalid, not_found
from controlplane.live.services import announce
from controlplane.tenancy.types import Permission, Principal, system_principal
from governance import services as governance

log = structlog.get_logger(__name__)


def pause_mission(*, actor: Principal, mission_id: uuid.UUID, reason: str = "") -> Mission:
    """Nothing more is allowed until it is resumed; its program keeps running and is told why its calls are refused."""
    with transaction.atomic():
        mission = _operate(
            actor,
            mission_id,
            [MissionState.ACTIVE],
            MissionState.PAUSED,
            reason.strip(),
            Event.MISSION_PAUSED,
            shown=f"Paused by {actor.name}",
        )
        tell_owners([mission], "Paused", actor=actor)
    return mission


def resume_mission(*, actor: Principal, mission_id: uuid.UUID) -> Mission:
    """Raises 409 `stop.in_force` while its agent, team or organisation is stopped."""
    mission = operable(actor, mission_id)
    with transaction.atomic():
        stops.require_no_stop(mission)
        return _operate(actor, mission_id, [MissionState.PAUSED], MissionState.ACTIVE, "", Event.MISSION_RESUMED)


def stop_mission(*, actor: Principal, mission_id: uuid.UUID, reason: str = "") -> Mission:
    """End it now: permits and tokens die, questions are withdrawn, holds released, the sandbox is deleted, the budget
    frozen."""
    stopping.stop(actor=actor, scope=StopScope.MISSION, scope_id=mission_id, reason=reason)
    return Mission.objects.select_related("agent").get(pk=mission_id)


def expire_missions() -> int:
    """Missions past their deadline end as expired. For the sweep; two workers end each once."""
    expired = 0
    overdue = Mission.objects.filter(state__in=[MissionState.ACTIVE, MissionState.PAUSED], deadline__lte=now())
    for mission in overdue.order_by("deadline")[:100]:
        try:
            with transaction.atomic():
                expired += _expire(mission)
        except Exception as error:  # one that fails now keeps no other from ending, and is tried again
            log.exception("mission.not_expired", mission=str(mission.pk), error=str(error))
    return expired


def accept_outcome(*, actor: Principal, mission_id: uuid.UUID, claim: str) -> Mission:
    """The claim holds: the mission succeeded, and its cost counts as the cost of an accepted goal. `claim`: the time of
    the one that was read."""
    return _judge_outcome(actor, mission_id, claim, Outcome.ACCEPTED, MissionState.SUCCEEDED, CheckState.ACCEPTED, "")


def reject_outcome(*, actor: Principal, mission_id: uuid.UUID, claim: str, reason: str) -> Mission:
    """The claim does not hold: the mission failed, for the reason given."""
    if not reason.strip():
        raise invalid(
            "mission.reason_missing",
            "Say why you reject it; the agent's owner reads it.",
            FieldError("/reason", "a reason"),
        )
    return _judge_outcome(
        actor, mission_id, claim, Outcome.REJECTED, MissionState.FAILED, CheckState.REJECTED, reason.strip()[:300]
    )


def subject_of(mission: Mission) -> Subject:
    return Subject("mission", mission.pk, mission.title, mission.team_id, mission.pk)


def operable(actor: Principal, mission_id: uuid.UUID) -> Mission:
    mission = Mission.objects.restrict(actor, Permission.MISSION_OPERATE).filter(pk=mission_id).first()
    if mission is None:
        raise not_found("mission")
    return mission


def move(
    mission_id: uuid.UUID,
    from_states: Sequence[MissionState],
    to: MissionState,
    reason: str,
    *,
    number: int | None = None,
) -> bool:
    """Out of the states it may leave: losing a race is False, never an overwrite. `number`: only while that version is
    the one that counts. `stopping`, `lifting` and `runs` change many at once, or under locks of their own."""
    rows = Mission.objects.filter(pk=mission_id, state__in=from_states)
    if number is not None:
        rows = rows.filter(version=number)
    moved = rows.update(state=to, state_reason=reason[:300], paused_by=None)
    if moved:
        announce(f"mission:{mission_id}", "state")
        organisation = Mission.objects.values_list("organisation_id", flat=True).get(pk=mission_id)
        announce(f"organisation:{organisation}", "missions")
    return bool(moved)


# -- below: one level down
# ----------------------------------------------------------------------------------------------


def _operate(
    actor: Principal,
    mission_id: uuid.UUID,
    from_states: Sequence[MissionState],
    to: MissionState,
    reason: str,
    event: Event,
    shown: str = "",
) -> Mission:
    """`shown`: what stands beside the state where nobody gave a reason."""
    mission = operable(actor, mission_id)
    with transaction.atomic():
        if not move(mission_id, from_states, to, reason or shown):
            mission.refresh_from_db()
            state = mission.get_state_display().lower()
            raise conflict(
                "mission.state",
                f"That can't be done now: this mission is {state}.",
                "Reload the page.",
                state=mission.state,
            )
        if to in ENDED_MISSION_STATES:
            Mission.objects.filter(pk=mission_id).update(ended_at=now())
        record(event=event, actor=actor, subject=subject_of(mission), payload={"reason": reason})
    mission.refresh_from_db()
    return mission


def _judge_outcome(
    actor: Principal,
    mission_id: uuid.UUID,
    claim: str,
    outcome: Outcome,
    state: MissionState,
    check: CheckState,
    reason: str,
) -> Mission:
    mission = operable(actor, mission_id)
    with transaction.atomic():
        won = Mission.objects.filter(pk=mission.pk, outcome=Outcome.CLAIMED, claim__at=claim).update(outcome=outcome)
        if not won or not move(mission.pk, [MissionState.ACTIVE, MissionState.PAUSED], state, reason):
            raise _not_judged(actor, mission, claim)
        mission.refresh_from_db(fields=["claim"])
        Mission.objects.filter(pk=mission.pk).update(ended_at=now())
        mission.checklist.filter(state=CheckState.CLAIMED).update(state=check)
        announce(f"mission:{mission.pk}", "checklist")
        tell_owners([mission], f"Outcome {outcome.label.lower()}", actor=actor)
        event = Event.MISSION_ACCEPTED if outcome is Outcome.ACCEPTED else Event.MISSION_REJECTED
        record(
            event=event,
            actor=actor,
            subject=subject_of(mission),
            payload={"reason": reason, "claim": mission.claim or {}},
        )
        _shut_down(actor=actor, mission=mission, reason="The mission is over")
    mission.refresh_from_db()
    return mission


def _not_judged(actor: Principal, mission: Mission, claim: str) -> RemitError:
    """An agent may claim again while somebody reads: that is another claim, which nobody has read."""
    mission.refresh_from_db()
    new = mission.claim or {}
    if mission.outcome == Outcome.CLAIMED and mission.ended_at is None and new.get("at") != claim:
        return conflict(
            "mission.claim_changed",
            f"That is not what the agent claims now, so nothing was decided. Its claim: {new.get('summary', '')}"[:500],
            "Read this claim, then decide.",
            claim=new,
        )
    said = "There is no open claim to judge."
    if mission.outcome in (Outcome.ACCEPTED, Outcome.REJECTED):
        last = audit.who_last(mission.pk, Event.MISSION_ACCEPTED, Event.MISSION_REJECTED)
        who_id, who = last or (None, "Somebody")
        judged = f"{mission.get_outcome_display().lower()} this outcome"
        said = f"You {judged} already." if who_id == actor.id else f"{who} {judged} before you. Nothing was changed."
    return conflict("mission.no_claim", said, "Open the mission.")


def _expire(mission: Mission) -> bool:
    reason = "Its deadline has passed"
    if not move(mission.pk, [MissionState.ACTIVE, MissionState.PAUSED], MissionState.EXPIRED, reason):
        return False
    actor = system_principal(organisation_id=mission.organisation_id)
    Mission.objects.filter(pk=mission.pk).update(ended_at=now())
    record(event=Event.MISSION_EXPIRED, actor=actor, subject=subject_of(mission))
    tell_owners([mission], "Expired", actor=actor)
    _shut_down(actor=actor, mission=mission, reason=reason)
    return True


def _shut_down(*, actor: Principal, mission: Mission, reason: str) -> None:
    settle_claims([mission])
    governance.void_open(mission_id=mission.pk, actor=actor, reason=reason)
    runs.stop_runs(actor=actor, mission=mission, reason=reason)
    if mission.account_id is not None:
        budgets.close_account(actor=actor, account_id=mission.account_id, reason=reason)
