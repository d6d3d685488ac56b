"""What an agent says of its own progress: checklist claims and the outcome claim. People decide what holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.db import transaction

from agents.choices import CheckState, MissionState, Outcome
from agents.models import ChecklistItem, Mission
from agents.services.missions import subject_of
from agents.services.telling import tell_claim
from controlplane.audit.events import Event
from controlplane.audit.services import record
from controlplane.common.clock import now
from controlplane.common.errors import FieldError, conflict, invalid, not_found
from controlplane.live.services import announce
from controlplane.tenancy.types import Permission, Principal


def report_progress(
    *, principal: Principal, position: int, state: str, evidence: str = "", note: str = ""
) -> ChecklistItem:
    """Claim one checklist item (or take the claim back) with evidence. Items people have judged stay as judged."""
    if state not in (CheckState.CLAIMED, CheckState.OPEN):
        raise invalid(
            "progress.state", "An agent can claim an item or take it back.", FieldError("/state", "claimed or open")
        )
    mission = _own_mission(principal)
    with transaction.atomic():
        rows = ChecklistItem.objects.filter(mission=mission, position=position)
        changed = rows.filter(state__in=[CheckState.OPEN, CheckState.CLAIMED]).update(
            state=state, evidence=evidence[:4000], note=note[:500], updated_at=now()
        )
        item = rows.first()
        if item is None:
            raise invalid(
                "progress.position", "There is no such item on the checklist.", FieldError("/position", "0, 1, …")
            )
        if not changed:
            raise conflict("progress.judged", "A person has already judged this item.")
        record(
            event=Event.CHECKLIST_CLAIMED,
            actor=principal,
            subject=subject_of(mission),
            payload={"item": item.text, "state": state, "evidence": evidence[:4000]},
        )
        announce(f"mission:{mission.pk}", "checklist")
    return item


def claim_outcome(*, principal: Principal, summary: str, evidence: Sequence[Mapping[str, Any]] = ()) -> Mission:
    """Say that the goal is reached. The mission waits for a person to accept or reject that."""
    if not summary.strip():
        raise invalid(
            "claim.summary", "Say in a sentence what was reached.", FieldError("/summary", "1 to 4,000 characters")
        )
    mission = _own_mission(principal)
    claim = {"summary": summary.strip()[:4000], "evidence": list(evidence)[:50], "at": now().isoformat()}
    with transaction.atomic():
        won = Mission.objects.filter(
            pk=mission.pk, state=MissionState.ACTIVE, outcome__in=[Outcome.NONE, Outcome.CLAIMED]
        ).update(outcome=Outcome.CLAIMED, claim=claim)
        if not won:
            raise conflict(
                "claim.not_active", "This mission takes no claim now.", "Look at its state with remit__mission."
            )
        record(
            event=Event.MISSION_FINISHED,
            actor=principal,
            subject=subject_of(mission),
            payload={"claim": claim["summary"]},
        )
        tell_claim(mission, actor=principal)
        announce(f"mission:{mission.pk}", "state")
        announce(f"organisation:{mission.organisation_id}", "missions")
    mission.refresh_from_db()
    return mission


def _own_mission(principal: Principal) -> Mission:
    if principal.mission_id is None:
        raise not_found("mission")
    mission = Mission.objects.restrict(principal, Permission.ACTION_PROPOSE).filter(pk=principal.mission_id).first()
    if mission is None:
        raise not_found("mission")
    return mission
