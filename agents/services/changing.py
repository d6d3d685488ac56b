"""Rewording a mission: a draft at once, a running one by a new version that waits for a second person when it
widens."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from django.db import transaction
from django.db.models import F

from agents.choices import ENDED_MISSION_STATES, MissionState, VersionState
from agents.models import ChecklistItem, Mission, MissionVersion
from agents.remits import Remit, remit_in_force, widens
from agents.services import runs
from agents.services.missions import subject_of
from agents.services.starting import add_wording, check_wording, facts_of, limits_of
from budgets import selectors as budget_reads
from budgets import services as budgets
from budgets.types import Limits, WindowKind
from controlplane.audit.events import Event
from controlplane.audit.services import record
from controlplane.common.errors import RemitError, conflict, not_found
from controlplane.live.services import announce
from controlplane.tenancy.types import Permission, Principal
from governance import services as governance
from governance.types import Judgement, Proposal

_NOT_STARTED = (MissionState.DRAFT, MissionState.AWAITING_SIGN_OFF)
_QUESTIONS = ("mission.sign_off", "mission.widen")
_ASIDE = 10_000  # where criteria wait while they change places: a position counts once


def change_mission(
    *, actor: Principal, mission_id: uuid.UUID, remit: Remit, note: str, expected_version: int
) -> Judgement | None:
    """A new version of a running mission. Tighter ones are in force at once; one that widens waits for a second person.

    A question about an earlier wording that still waits is withdrawn: this one takes its place. Returns the gate's
    answer, or None for what has not started yet, which is simply reworded. Raises 412 `mission.changed_meanwhile`.
    """
    check_wording("kept", remit)
    if actor.user_id is None:
        raise not_found("mission")
    with transaction.atomic():
        mission = _locked(actor, mission_id)
        latest = mission.versions.latest("number")
        if latest.number != expected_version:
            raise RemitError(
                "mission.changed_meanwhile",
                f"It is at version {latest.number} now.",
                412,
                remedies=("Reload and look again.",),
            )
        current = mission.versions.get(number=mission.version)
        wider = widens(remit_in_force(mission, current), remit)
        number = latest.number + 1
        governance.void_open(
            actor=actor, mission_id=mission.pk, kinds=_QUESTIONS, reason=f"Version {number} takes its place."
        )
        version = add_wording(mission, number, remit, actor.user_id, VersionState.DRAFT, widens_=wider, note=note)
        if mission.state in _NOT_STARTED:
            asked = mission.state == MissionState.AWAITING_SIGN_OFF
            reason = "Reworded before its sign-off" if asked else ""
            Mission.objects.filter(pk=mission.pk).update(state_reason=reason)
            put_in_force(actor=actor, mission=mission, version=version)
            return None
    return governance.propose(
        proposer=actor,
        proposal=Proposal(
            kind="mission.widen",
            arguments={"mission_id": str(mission.pk), "version": version.number},
            idempotency_key=f"widen:{mission.pk}:{version.number}",
            audience="remit",
        ),
    )


def put_in_force(
    *, actor: Principal, mission: Mission, version: MissionVersion, action_id: uuid.UUID | None = None
) -> None:
    """Make a version the one that counts. Inside the caller's transaction; budget and checklist follow."""
    started = mission.state not in _NOT_STARTED
    replaced = [VersionState.ACTIVE] if started else [VersionState.DRAFT, VersionState.AWAITING_SIGN_OFF]
    later = Mission.objects.filter(pk=mission.pk, version__lt=version.number)
    if not later.update(version=version.number, deadline=version.deadline):
        raise conflict("mission.version_superseded", "A later version is already in force.", "Reload and look again.")
    mission.versions.exclude(pk=version.pk).filter(state__in=replaced).update(state=VersionState.SUPERSEDED)
    mission.versions.filter(pk=version.pk).update(state=VersionState.ACTIVE if started else VersionState.DRAFT)
    _rewrite_checklist(mission, version.criteria)
    runs.follow_deadline(mission=mission, deadline=version.deadline)
    if mission.account_id is not None:
        budgets.apply_limit(
            actor=actor,
            account_id=mission.account_id,
            window=WindowKind.TOTAL,
            limits=_limits_by_now(mission.account_id, version) if started else limits_of(version),
            action_id=action_id,
        )
    record(event=Event.MISSION_CHANGED, actor=actor, subject=subject_of(mission), payload=facts_of(version))
    for part in ("remit", "checklist"):
        announce(f"mission:{mission.pk}", part)


def _locked(actor: Principal, mission_id: uuid.UUID) -> Mission:
    rows = Mission.objects.restrict(actor, Permission.MISSION_WRITE).select_related("organisation")
    mission = rows.select_for_update(of=("self",)).filter(pk=mission_id).first()
    if mission is None:
        raise not_found("mission")
    if mission.state in ENDED_MISSION_STATES:
        raise conflict("mission.ended", "This mission is over, so its remit stays as it is.", "Start a new one.")
    return mission


def _limits_by_now(account_id: uuid.UUID, version: MissionVersion) -> Limits:
    """Its own, where it changes them. What it leaves as it was when it was worded stays as decided since: more that was
    granted while the change waited is not taken away by it."""
    wanted = limits_of(version)
    then = budget_reads.limits_decided(account_id=account_id, window=WindowKind.TOTAL, at=version.created_at)
    by_now = budget_reads.limits_decided(account_id=account_id, window=WindowKind.TOTAL)
    if then is None or by_now is None:
        return wanted
    return Limits(
        money=by_now.money if wanted.money == then.money else wanted.money,
        tokens=by_now.tokens if wanted.tokens == then.tokens else wanted.tokens,
        steps=by_now.steps if wanted.steps == then.steps else wanted.steps,
    )


def _rewrite_checklist(mission: Mission, criteria: Sequence[str]) -> None:
    """Criteria that stay as worded keep what was claimed of them, wherever they stand now."""
    mission.checklist.update(position=F("position") + _ASIDE)
    kept: dict[str, list[ChecklistItem]] = {}
    for item in mission.checklist.order_by("position"):
        kept.setdefault(item.text, []).append(item)
    for position, text in enumerate(text[:300] for text in criteria):
        if kept.get(text):
            mission.checklist.filter(pk=kept[text].pop(0).pk).update(position=position)
        else:
            ChecklistItem.objects.create(mission=mission, position=position, text=text)
    mission.checklist.filter(position__gte=_ASIDE).delete()
