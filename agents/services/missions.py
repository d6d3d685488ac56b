"""The life of a mission: drafted, signed off, active, paused, ended. Every step is a conditional update with its audit
entry."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import structlog
from django.db import transaction

from agents import stops
from agents.choices import (
    ENDED_MISSION_STATES,
    AgentState,
    CheckState,
    MissionState,
    Outcome,
    StopScope,
    VersionState,
)
from agents.models import Agent, ChecklistItem, Mission, MissionVersion
from agents.remits import MOST_BUDGET, Remit
from agents.services import runs, stopping
from agents.services.telling import tell_owners
from budgets import services as budgets
from budgets.types import Level, Limits, WindowKind
from controlplane.audit.events import Event
from controlplane.audit.services import Subject, record
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, RemitError, conflict, invalid, not_found
from controlplane.common.written_amounts import written_amount
from controlplane.live.services import announce
from controlplane.tenancy.types import Permission, Principal, system_principal
from governance import services as governance
from governance.types import Judgement, Proposal

log = structlog.get_logger(__name__)


def draft_mission(
    *,
    actor: Principal,
    agent_id: uuid.UUID,
    title: str,
    remit: Remit,
    template: str = "",
    settings: dict[str, Any] | None = None,
) -> Mission:
    """A mission nobody has started. Raises 422 `mission.invalid` naming every bad field."""
    check_wording(title, remit)
    agent = Agent.objects.restrict(actor, Permission.MISSION_WRITE).filter(pk=agent_id, state=AgentState.ACTIVE).first()
    if agent is None or actor.user_id is None:
        raise not_found("agent")
    with transaction.atomic():
        mission = Mission.objects.create(
            organisation_id=actor.organisation_id,
            team_id=agent.team_id,
            agent=agent,
            owner_id=actor.user_id,
            template=template,
            title=title.strip()[:160],
            settings=settings or {},
            created_by_id=actor.user_id,
            deadline=remit.deadline,
        )
        version = add_wording(mission, 1, remit, actor.user_id, VersionState.DRAFT)
        ChecklistItem.objects.bulk_create(
            ChecklistItem(mission=mission, position=position, text=text[:300])
            for position, text in enumerate(remit.criteria)
        )
        record(event=Event.MISSION_DRAFTED, actor=actor, subject=subject_of(mission), payload=facts_of(version))
        announce(f"organisation:{actor.organisation_id}", "missions")
    return mission


def submit_mission(*, actor: Principal, mission_id: uuid.UUID) -> Judgement:
    """Ask the gate to start it: small budgets start at once, larger ones wait for a second person's sign-off."""
    mission = _operable(actor, mission_id)
    if mission.state != MissionState.DRAFT:
        raise conflict(
            "mission.not_draft", f"This mission is {mission.get_state_display().lower()}.", "Open it to see why."
        )
    return governance.propose(
        proposer=actor,
        proposal=Proposal(
            kind="mission.sign_off",
            arguments={"mission_id": str(mission.pk), "version": mission.version},
            idempotency_key=f"sign-off:{mission.pk}:{mission.version}:{now().isoformat()}",
            audience="remit",
        ),
    )


def await_sign_off(*, actor: Principal, mission_id: uuid.UUID, number: int, reason: str) -> None:
    """The gate asks a second person about version `number`. Inside the decision's transaction."""
    if _move(mission_id, [MissionState.DRAFT], MissionState.AWAITING_SIGN_OFF, reason, number=number):
        mission = Mission.objects.get(pk=mission_id)
        mission.versions.filter(number=number).update(state=VersionState.AWAITING_SIGN_OFF)
        record(event=Event.MISSION_SUBMITTED, actor=actor, subject=subject_of(mission), payload={"reason": reason})


def activate(*, actor: Principal, mission_id: uuid.UUID, number: int, signed_off_by: uuid.UUID | None) -> None:
    """Start it as version `number` words it: budget account, first run. Inside the transaction that permitted it."""
    startable = [MissionState.DRAFT, MissionState.AWAITING_SIGN_OFF]
    if not _move(mission_id, startable, MissionState.ACTIVE, "", number=number):
        raise conflict(
            "mission.not_startable",
            "This mission was started, stopped or reworded meanwhile.",
            "Open it to see its state.",
        )
    mission = Mission.objects.select_related("agent").get(pk=mission_id)
    version = mission.versions.get(number=number)
    mission.versions.filter(pk=version.pk).update(
        state=VersionState.ACTIVE, signed_off_by_id=signed_off_by, signed_off_at=now() if signed_off_by else None
    )
    mission.account_id = budgets.open_account(
        actor=actor,
        organisation_id=mission.organisation_id,
        team_id=mission.team_id,
        parent_id=mission.agent.account_id,
        level=Level.MISSION,
        name=mission.title,
        subject_type="mission",
        subject_id=mission.pk,
        limits=limits_of(version),
        window=WindowKind.TOTAL,
    )
    mission.started_at = now()
    mission.save(update_fields=["account_id", "started_at"])
    if signed_off_by:
        record(
            event=Event.MISSION_SIGNED_OFF,
            actor=actor,
            subject=subject_of(mission),
            payload={"version": version.number},
        )
    record(event=Event.MISSION_STARTED, actor=actor, subject=subject_of(mission), payload=facts_of(version))
    runs.start_run(actor=actor, mission=mission)


def refuse_sign_off(*, actor: Principal, mission_id: uuid.UUID, number: int, reason: str) -> None:
    """Back to a draft, so that it can be reworded. Inside the transaction that refused it."""
    shown = f"Not signed off: {reason}"
    _back_to_draft(actor, mission_id, number, Event.MISSION_SIGN_OFF_REFUSED, reason, shown=shown)


def withdraw_sign_off(*, actor: Principal, mission_id: uuid.UUID, number: int, reason: str) -> None:
    """Back to a draft, which no person refused. Inside the transaction that withdrew or ended the question."""
    _back_to_draft(actor, mission_id, number, Event.MISSION_SIGN_OFF_WITHDRAWN, reason, shown=reason)


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
    mission = _operable(actor, mission_id)
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


def add_wording(
    mission: Mission,
    number: int,
    remit: Remit,
    user_id: uuid.UUID,
    state: VersionState,
    *,
    widens_: bool = False,
    note: str = "",
) -> MissionVersion:
    currency = mission.organisation.currency
    return MissionVersion.objects.create(
        mission=mission,
        number=number,
        state=state,
        goal=remit.goal.strip(),
        criteria=[text[:300] for text in remit.criteria],
        grants=[grant.as_dict() for grant in remit.grants],
        budget_money=remit.budget_money,
        budget_tokens=remit.budget_tokens,
        budget_steps=remit.budget_steps,
        currency=currency,
        deadline=remit.deadline,
        importance=remit.importance,
        residency=remit.residency,
        widens=widens_,
        change_note=note[:300],
        created_by_id=user_id,
    )


def check_wording(title: str, remit: Remit) -> None:
    """Raises 422 `mission.invalid` naming every bad field."""
    errors: list[FieldError] = []
    if not 1 <= len(title.strip()) <= 160:
        errors.append(FieldError("/title", "1 to 160 characters"))
    if not 1 <= len(remit.goal.strip()) <= 4000:
        errors.append(FieldError("/goal", "1 to 4,000 characters"))
    if not 1 <= len(remit.criteria) <= 30 or any(not text.strip() for text in remit.criteria):
        errors.append(FieldError("/criteria", "1 to 30 lines, none of them empty"))
    if not Decimal("0") < remit.budget_money <= MOST_BUDGET:
        errors.append(FieldError("/budget", "more than 0 and at most 1,000,000"))
    if remit.deadline <= now():
        errors.append(FieldError("/deadline", "a moment that is still to come"))
    if errors:
        raise invalid("mission.invalid", "Some of it can't be used as it is.", *errors)


def limits_of(version: MissionVersion) -> Limits:
    return Limits(money=version.budget_money, tokens=version.budget_tokens, steps=version.budget_steps)


def facts_of(version: MissionVersion) -> dict[str, Any]:
    return {
        "version": version.number,
        "goal": version.goal,
        "budget": {"amount": written_amount(version.budget_money), "currency": version.currency},
        "deadline": version.deadline.isoformat(),
        "grants": version.grants,
        "widens": version.widens,
    }


# -- below: one level down
# ----------------------------------------------------------------------------------------------


def _operable(actor: Principal, mission_id: uuid.UUID) -> Mission:
    mission = Mission.objects.restrict(actor, Permission.MISSION_OPERATE).filter(pk=mission_id).first()
    if mission is None:
        raise not_found("mission")
    return mission


def _move(
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


def _back_to_draft(
    actor: Principal, mission_id: uuid.UUID, number: int, event: Event, reason: str, *, shown: str
) -> None:
    startable = [MissionState.DRAFT, MissionState.AWAITING_SIGN_OFF]
    if _move(mission_id, startable, MissionState.DRAFT, shown, number=number):
        mission = Mission.objects.get(pk=mission_id)
        mission.versions.filter(number=number).update(state=VersionState.DRAFT)
        record(event=event, actor=actor, subject=subject_of(mission), payload={"reason": reason})


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
    mission = _operable(actor, mission_id)
    with transaction.atomic():
        if not _move(mission_id, from_states, to, reason or shown):
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
    mission = _operable(actor, mission_id)
    with transaction.atomic():
        won = Mission.objects.filter(pk=mission.pk, outcome=Outcome.CLAIMED, claim__at=claim).update(outcome=outcome)
        if not won or not _move(mission.pk, [MissionState.ACTIVE, MissionState.PAUSED], state, reason):
            raise _not_judged(mission, claim)
        mission.refresh_from_db(fields=["claim"])
        Mission.objects.filter(pk=mission.pk).update(ended_at=now())
        mission.checklist.filter(state=CheckState.CLAIMED).update(state=check)
        announce(f"mission:{mission.pk}", "checklist")
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


def _not_judged(mission: Mission, claim: str) -> RemitError:
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
    return conflict("mission.no_claim", "There is no open claim to judge.", "Reload the page.")


def _expire(mission: Mission) -> bool:
    reason = "Its deadline has passed"
    if not _move(mission.pk, [MissionState.ACTIVE, MissionState.PAUSED], MissionState.EXPIRED, reason):
        return False
    actor = system_principal(organisation_id=mission.organisation_id)
    Mission.objects.filter(pk=mission.pk).update(ended_at=now())
    record(event=Event.MISSION_EXPIRED, actor=actor, subject=subject_of(mission))
    tell_owners([mission], "Expired", actor=actor)
    _shut_down(actor=actor, mission=mission, reason=reason)
    return True


def _shut_down(*, actor: Principal, mission: Mission, reason: str) -> None:
    governance.void_open(mission_id=mission.pk, actor=actor, reason=reason)
    runs.stop_runs(actor=actor, mission=mission, reason=reason)
    if mission.account_id is not None:
        budgets.close_account(actor=actor, account_id=mission.account_id, reason=reason)
