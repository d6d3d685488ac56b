"""Lifting a stop, as the permitted action `stop.lift` asks: its freeze goes, and what it paused may run again."""

from __future__ import annotations

import uuid
from typing import Final

import structlog
from django.db import transaction

from agents import stops
from agents.choices import MissionState, Outcome, RunState, StopScope
from agents.models import Mission, Stop
from agents.services import runs
from agents.services.stopping import subject_of
from agents.stops import Target
from budgets import services as budgets
from controlplane.audit import services as audit
from controlplane.audit.events import Event
from controlplane.audit.services import Subject
from controlplane.common.clock import now
from controlplane.common.errors import RemitError, conflict, forbidden
from controlplane.live.services import announce
from controlplane.tenancy.models import Membership, Team
from controlplane.tenancy.types import ROLE_PERMISSIONS, Permission, Principal, system_principal
from governance import selectors as governance_reads
from governance import services as governance
from governance.types import Judgement, Prepared, Proposal

log = structlog.get_logger(__name__)


QUESTION_SECONDS: Final = 24 * 3600
_MAY_LIFT_ALL: Final = [
    role
    for role, held in ROLE_PERMISSIONS.items()
    if Permission.ESCALATION_DECIDE in held or Permission.MISSION_OPERATE in held
]


def nobody_could_agree_to_lifting(*, actor: Principal, target: Target) -> bool:
    """Whether lifting a stop of it would wait for a second person, and nobody but the actor could be that person."""
    if target.scope not in (StopScope.TEAM, StopScope.ORGANISATION):
        return False
    team_id = target.team_id or _oldest_team(target.organisation_id)
    if team_id is None:
        return True
    facts = Prepared(
        team_id=team_id,
        title="",
        envelope={},
        principal_entity={},
        resource_entity={},
        context={},
        excluded_user_ids=[actor.user_id] if actor.user_id else [],
        escalation_ttl_seconds=QUESTION_SECONDS,
    )
    asked = governance_reads.whom_it_asks(proposer=actor, kind=stops.LIFT, prepared=facts)
    if target.scope == StopScope.ORGANISATION:  # whoever `lift` would turn away counts for nothing
        everywhere = Membership.objects.standing().filter(team__isnull=True, role__in=_MAY_LIFT_ALL)
        return not everywhere.filter(user__in=asked.people).exists()
    return not asked.in_reach


def any_team(organisation_id: uuid.UUID) -> uuid.UUID:
    """A question has a team; one about the whole organisation is filed with the oldest, and `lift` asks for more."""
    team_id = _oldest_team(organisation_id)
    if team_id is None:
        raise conflict(
            "stop.no_team", "This organisation has no team yet, so nobody can be asked.", "Make a team first."
        )
    return team_id


def _oldest_team(organisation_id: uuid.UUID) -> uuid.UUID | None:
    return Team.objects.filter(organisation_id=organisation_id).order_by("id").values_list("pk", flat=True).first()


def ask_to_lift(*, actor: Principal, stop_id: uuid.UUID, resume: bool, reason: str = "") -> Judgement:
    """Ask the gate: a team's or organisation's stop, and one over much money, waits for a second person."""
    made = stops.stop_named(actor, stop_id)
    return governance.propose(
        proposer=actor,
        proposal=Proposal(
            kind=stops.LIFT,
            arguments={"stop_id": str(made.pk), "resume": resume},
            justification=reason.strip()[:300],
            audience="remit",
        ),
    )


def lift(*, actor: Principal, stop_id: uuid.UUID, action_id: uuid.UUID, resume: bool) -> Stop:
    """Inside the transaction that permitted it, by whoever permitted it. Raises 409 `stop.lifted`, 403."""
    if actor.user_id is None:
        raise forbidden(Permission.MISSION_OPERATE.value)
    made = Stop.objects.select_for_update(no_key=True, of=("self",)).select_related("organisation").get(pk=stop_id)
    if made.team_id is None and not (actor.has(Permission.ESCALATION_DECIDE) or actor.has(Permission.MISSION_OPERATE)):
        raise RemitError(
            "stop.whole_organisation",
            "This stop concerns the whole organisation, and your role one team.",
            403,
            remedies=("Ask someone who may decide for the whole organisation.",),
        )
    if not made.in_force:
        raise conflict("stop.lifted", "This stop does not hold any more.", "Reload the page.")
    made.lifted_by_id, made.lifted_at, made.lift_action_id, made.resume = actor.user_id, now(), action_id, resume
    made.save(update_fields=["lifted_by", "lifted_at", "lift_action_id", "resume"])
    _hand_over(made, resume)
    if made.froze and made.account_id is not None:
        words = f"The stop of {made.name} was lifted"
        budgets.release_halted(actor=actor, account_id=made.account_id, frozen_for=made.frozen_for, reason=words)
    audit.record(
        event=Event.STOP_LIFTED,
        actor=actor,
        subject=subject_of(made),
        payload={"action": str(action_id), "resume": resume},
    )
    announce(f"stop:{made.pk}", "proofs")
    announce(f"organisation:{made.organisation_id}", "stops")
    announce(f"warnings:{made.organisation_id}", "warnings")
    if resume:
        from agents import tasks

        tasks.resume_lifted.wake()
    return made


def resume_lifted() -> int:
    """Missions whose stop was lifted with the wish to go on: each resumes in a transaction of its own, with another
    attempt where it was at work. For the task and its sweep; one that can't start now stays paused and says why."""
    waiting = Mission.objects.filter(
        state=MissionState.PAUSED, paused_by__resume=True, paused_by__lifted_at__isnull=False
    ).order_by("id")
    return sum(_resume(key) for key in waiting.values_list("pk", flat=True)[:500])


def _hand_over(made: Stop, resume: bool) -> None:
    """What another stop still holds is that one's from now on; the rest may be resumed, or is left to be."""
    missions = list(Mission.objects.filter(paused_by=made).order_by("id").select_for_update(no_key=True))
    for mission in missions:
        other = stops.in_force_for(mission)
        if other is not None:
            mission.paused_by, mission.state_reason = other, other.frozen_for
        elif not resume:
            mission.paused_by = None
            mission.state_reason = f"The stop of {made.name} was lifted; nobody has resumed this yet"[:300]
        announce(f"mission:{mission.pk}", "state")
    Mission.objects.bulk_update(missions, ["paused_by", "state_reason"], batch_size=500)


def _resume(mission_id: uuid.UUID) -> bool:
    try:
        with transaction.atomic():
            organisation_id = Mission.objects.values_list("organisation_id", flat=True).get(pk=mission_id)
            stops.share_lock(organisation_id)
            rows = Mission.objects.select_for_update(no_key=True, of=("self",)).select_related("agent")
            row = rows.filter(pk=mission_id, state=MissionState.PAUSED, paused_by__lifted_at__isnull=False).first()
            if row is None or stops.in_force_for(row) is not None:
                return False
            Mission.objects.filter(pk=row.pk).update(state=MissionState.ACTIVE, state_reason="", paused_by=None)
            actor = system_principal(organisation_id=organisation_id)
            audit.record(event=Event.MISSION_RESUMED, actor=actor, subject=_subject(row))
            if _was_at_work(row):
                runs.start_run(actor=actor, mission=row)
            _tell(row)
    except RemitError as error:
        if error.retry_after_seconds is not None:
            return False  # the sweep tries again
        _stays_paused(mission_id, f"It could not go on after the stop: {error.message}"[:300])
        return False
    return True


def _was_at_work(mission: Mission) -> bool:
    """False where the program had ended or an outcome is claimed: the work is done, and is not paid for once more."""
    last = mission.runs.order_by("-attempt").first()
    return mission.outcome != Outcome.CLAIMED and (last is None or last.state != RunState.SUCCEEDED)


@transaction.atomic
def _stays_paused(mission_id: uuid.UUID, reason: str) -> None:
    """Unless a person or another stop was first."""
    rows = Mission.objects.select_for_update(no_key=True, of=("self",))
    row = rows.filter(pk=mission_id, state=MissionState.PAUSED, paused_by__lifted_at__isnull=False).first()
    if row is None:
        return
    Mission.objects.filter(pk=row.pk).update(paused_by=None, state_reason=reason)
    actor = system_principal(organisation_id=row.organisation_id)
    audit.record(event=Event.MISSION_PAUSED, actor=actor, subject=_subject(row), payload={"reason": reason})
    _tell(row)


def _subject(mission: Mission) -> Subject:
    return Subject("mission", mission.pk, mission.title, mission.team_id, mission.pk)


def _tell(mission: Mission) -> None:
    announce(f"mission:{mission.pk}", "state")
    announce(f"organisation:{mission.organisation_id}", "missions")
