"""Going on to the next tier: when the first one's time is over, or when it can't reach the quorum any more."""

from __future__ import annotations

import uuid

from django.db.models import F

from controlplane.audit.events import Event
from controlplane.audit.services import record
from controlplane.tenancy.types import system_principal
from governance.announcing import inbox_changed, question_stands
from governance.choices import EscalationState
from governance.escalations.closing import subject_of_escalation
from governance.escalations.electorate import electorates
from governance.models import Escalation, Vote


def go_on(escalation: Escalation, *, reason: str) -> bool:
    """Inside a transaction: ask the next tier too, if there is one that was not asked yet. The claim ends with it."""
    moved = Escalation.objects.filter(
        pk=escalation.pk, state=EscalationState.OPEN, tier=1, tier_ends_at__isnull=False
    ).update(tier=2, tier_ends_at=None, version=F("version") + 1, claimed_by=None, claimed_until=None)
    if not moved:
        return False
    record(
        event=Event.ESCALATION_NEXT_TIER,
        actor=system_principal(organisation_id=escalation.organisation_id),
        subject=subject_of_escalation(escalation),
        payload={"reason": reason},
    )
    inbox_changed(escalation.action)
    question_stands(escalation.pk)
    return True


def out_of_reach(escalations: list[Escalation]) -> list[Escalation]:
    """Those of one organisation whose quorum can't be reached any more by whom they ask."""
    found = electorates(escalations)
    votes: dict[uuid.UUID, list[Vote]] = {row.pk: [] for row in escalations}
    for vote in Vote.objects.filter(escalation_id__in=votes):
        votes[vote.escalation_id].append(vote)
    return [row for row in escalations if found[row.pk].reachable(votes[row.pk]) < row.needed]
