"""A mission until it runs: drafted and worded, signed off or sent back, started. Every step is a conditional update
with its audit entry."""

from __future__ import annotations

import uuid
from decimal import Decimal
from typing import Any

from django.db import transaction

from agents.choices import AgentState, MissionState, VersionState
from agents.grants import contradictions
from agents.models import Agent, ChecklistItem, Mission, MissionVersion
from agents.remits import DEADLINES_BEFORE, MOST_BUDGET, Remit
from agents.services import runs
from agents.services.missions import move, operable, subject_of
from budgets import services as budgets
from budgets.types import Level, Limits, WindowKind
from controlplane.audit.events import Event
from controlplane.audit.services import record
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, conflict, invalid, not_found
from controlplane.common.written_amounts import written_amount
from controlplane.live.services import announce
from controlplane.tenancy.types import Permission, Principal
from governance import services as governance
from governance.types import Judgement, Proposal


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
    mission = operable(actor, mission_id)
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
    if move(mission_id, [MissionState.DRAFT], MissionState.AWAITING_SIGN_OFF, reason, number=number):
        mission = Mission.objects.get(pk=mission_id)
        mission.versions.filter(number=number).update(state=VersionState.AWAITING_SIGN_OFF)
        record(event=Event.MISSION_SUBMITTED, actor=actor, subject=subject_of(mission), payload={"reason": reason})


def activate(*, actor: Principal, mission_id: uuid.UUID, number: int, signed_off_by: uuid.UUID | None) -> None:
    """Start it as version `number` words it: budget account, first run. Inside the transaction that permitted it."""
    startable = [MissionState.DRAFT, MissionState.AWAITING_SIGN_OFF]
    if not move(mission_id, startable, MissionState.ACTIVE, "", number=number):
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
    elif remit.deadline.year >= DEADLINES_BEFORE:
        errors.append(FieldError("/deadline", f"a moment before the year {DEADLINES_BEFORE}"))
    errors += contradictions(remit.grants)
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


def _back_to_draft(
    actor: Principal, mission_id: uuid.UUID, number: int, event: Event, reason: str, *, shown: str
) -> None:
    startable = [MissionState.DRAFT, MissionState.AWAITING_SIGN_OFF]
    if move(mission_id, startable, MissionState.DRAFT, shown, number=number):
        mission = Mission.objects.get(pk=mission_id)
        mission.versions.filter(number=number).update(state=VersionState.DRAFT)
        record(event=event, actor=actor, subject=subject_of(mission), payload={"reason": reason})
